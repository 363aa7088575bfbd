"""Values against a params schema: defaults filled in, every rule checked, the cost bounded.

Regular expressions run on a linear-time engine, and the work of one validation has a ceiling: neither who triggers a
DAG nor who defines one must be able to hang the process that validates.
"""

from __future__ import annotations

import json
from ast import literal_eval
from contextvars import ContextVar
from copy import deepcopy
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple
from urllib.parse import quote

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend
from pydantic import StringConstraints, TypeAdapter
from pydantic import ValidationError as NoMatch
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from dag import formats
from dag.references import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dag.findings import Findings

#: The work of one validation; a unit is about a microsecond.
_MOST_WORK: Final = 500_000
#: One keyword, one element that a keyword goes through, and how many characters are one unit.
_KEYWORD: Final = 4
_ELEMENT: Final = 4
_CHARACTERS: Final = 20
#: After so many findings there is enough to mend.
_MOST_FINDINGS: Final = 100
_DEEPEST: Final = 64
_HOME: Final = "urn:params"


class _TooMuch(Exception):
    """A validation has used up its work."""


class _Work:
    """What is left of the work of one validation, and what it need not find out twice.

    What it remembers goes by identity, of parts of the schema and the params: both outlive it.
    """

    def __init__(self) -> None:
        self._left = _MOST_WORK
        self._sizes: dict[int, int] = {}
        self._choices: dict[int, frozenset[str]] = {}

    def spend(self, units: int) -> None:
        self._left -= units
        if self._left < 0:
            raise _TooMuch

    def read(self, *values: Any) -> None:
        """Spend what it takes to go through *values* as a whole."""
        self.spend(sum(map(self.size, values)) // _CHARACTERS)

    def size(self, value: Any) -> int:
        """Return about how many characters *value* is written with."""
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, dict | list):
            return 8
        known = self._sizes.get(id(value))
        if known is None:
            self.spend(len(value) // 2)
            inner = value if isinstance(value, list) else [*value, *value.values()]
            known = self._sizes[id(value)] = 8 + sum(map(self.size, inner)) + 4 * len(inner)
        return known

    def choices(self, choices: list[Any]) -> frozenset[str]:
        """Return *choices* in their canonical form."""
        known = self._choices.get(id(choices))
        if known is None:
            self.read(choices, choices)
            self.spend(len(choices) * _ELEMENT)
            known = self._choices[id(choices)] = frozenset(map(_canonical, choices))
        return known


_work: ContextVar[_Work] = ContextVar("work")


def filled(schema: Mapping[str, Any], given: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """Return a copy of *given* with the defaults of missing properties, also inside the objects that are there."""
    whole = deepcopy(dict(given))
    try:
        _fill(schema, whole, schema, _Work())
    except _TooMuch:
        hint = "Write smaller defaults, or fewer inside each other."
        findings.add("/params", "too_much_work", "Filling in the defaults takes too much work.", hint)
    return whole


def validate(schema: Mapping[str, Any], params: Mapping[str, Any], findings: Findings) -> None:
    """Tell *findings* where *params* does not fit *schema*."""
    strict = {"additionalProperties": False, **schema, "type": "object"}
    _run(strict, "", params, _Told("/params", "bad_param", findings))


def validate_default(schema: Mapping[str, Any], name: str, findings: Findings) -> None:
    """Tell *findings* where the default of the property *name* does not fit what the property asks."""
    inner = f"/properties/{escape(name)}"
    default = schema["properties"][name]["default"]
    _run(
        schema,
        inner,
        default,
        _Told(f"/params{inner}/default", "bad_default", findings, "Change the default, or the rule."),
    )


class _Told(NamedTuple):
    """Where the value stands, which rule it breaks, who is told, and the way out where an error knows none."""

    at: str
    code: str
    findings: Findings
    hint: str = "See the params of the DAG."


def _run(schema: Mapping[str, Any], part: str, value: Any, told: _Told) -> None:
    """Check *value* against the subschema of *schema* at the pointer *part*."""
    # A registry of its own: references find this one schema, and nothing is ever fetched.
    registry = Registry[Any]().with_resource(_HOME, DRAFT202012.create_resource(schema))
    validator = _Validator({"$ref": f"{_HOME}#{quote(part)}"}, registry=registry, format_checker=_CHECKER)
    work = _Work()
    token = _work.set(work)
    try:
        for number, error in enumerate(validator.iter_errors(value)):
            if number == _MOST_FINDINGS:
                told.findings.add(told.at, "too_many_problems", "There are more problems.", "Mend these first.")
                break
            rest, message, hint = _message(error)
            at = told.at + pointer(error.absolute_path) + rest
            work.spend(len(at) // 4)
            told.findings.add(at, told.code, message, hint or told.hint)
    except (_TooMuch, RecursionError):
        hint = "Make the params smaller or the schema simpler."
        told.findings.add(told.at, "too_much_work", "Checking it against the schema takes too much work.", hint)
    finally:
        _work.reset(token)


def _message(error: ValidationError) -> tuple[str, str, str]:
    """Return (rest of the pointer, message, hint) of one error of the library."""
    keyword, expected, value = str(error.validator), _known(error.validator_value), _known(error.instance)
    rest, hint = "", ""
    match keyword:
        case "additionalProperties" if expected is False:
            known = sorted(error.schema.get("properties", {})) if isinstance(error.schema, dict) else []
            names = sorted(set(value) - set(known))
            rest = f"/{escape(names[0])}" if len(names) == 1 else ""
            message = f"Not declared: {', '.join(ascii(shorten(name)) for name in names[:5])}."
            hint = shorten(f"Declared are: {', '.join(known[:200]) or 'none'}.", 2000)
        case "required":
            missing = error.message.removesuffix(" is a required property")
            rest, message, hint = f"/{escape(literal_eval(missing))}", f"{missing} is required.", "Pass it."
        case "type":
            message = f"It must be of type {' or '.join(expected) if isinstance(expected, list) else expected}."
        case "enum" | "const":
            choices = expected if keyword == "enum" else [expected]
            message = "It is none of the values that are possible."
            hint = shorten("Possible: " + ", ".join(_start(one) for one in choices[:100]), 300)
        case "format":
            message, hint = f"It is no {expected}.", formats.EXAMPLES.get(str(expected), "")
        case "anyOf" | "oneOf" | "not" | "additionalProperties":
            message = f"It does not fit {keyword} of the schema."
        case "None":
            message = "No value is possible here."
        case _:
            message = f"It breaks the rule {keyword}: {shorten(_start(expected))}."
    return rest, message, hint


def _start(value: Any) -> str:
    """Return *value* as JSON, of a long one the beginning."""
    return "".join(islice(json.JSONEncoder().iterencode(value), 300))


def _known(value: Any) -> Any:
    """The stubs say that facts of an error may be unset; those of a validation never are."""
    return value


def _fill(schema: Any, value: Any, root: Mapping[str, Any], work: _Work, depth: int = 0) -> None:
    schema = _target(schema, root)
    if not isinstance(schema, dict) or not isinstance(value, dict) or depth > _DEEPEST:
        return
    properties = schema.get("properties") or {}
    work.spend(len(properties))
    for name, inner in properties.items():
        declared = _target(inner, root)
        if name not in value and isinstance(declared, dict):
            source = inner if "default" in inner else declared
            if "default" in source:
                work.spend(_KEYWORD + work.size(source["default"]) // 4)  # a copy of many small values is slow
                value[name] = deepcopy(source["default"])
        if name in value:
            work.spend(_KEYWORD)
            _fill(inner, value[name], root, work, depth + 1)


def _target(schema: Any, root: Mapping[str, Any]) -> Any:
    """Follow ``$ref``; :func:`check` has made sure that each leads somewhere and none in a circle."""
    while isinstance(schema, dict) and "$ref" in schema:
        here: Any = root
        for part in schema["$ref"].removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            here = here[int(key)] if isinstance(here, list) else here[key]
        schema = here
    return schema


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str):
        _work.get().spend(len(instance) * (len(pattern) + 10) // 200)
        if not matches(pattern, instance):
            yield ValidationError(f"does not match {pattern}")


def _unique(_validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(instance, list):
        _work.get().read(instance, instance)
        _work.get().spend(len(instance) * _ELEMENT)
        if len({_canonical(one) for one in instance}) < len(instance):
            yield ValidationError("has equal items")


def _enum(_validator: Any, choices: list[Any], instance: Any, _schema: Any) -> Iterator[ValidationError]:
    work = _work.get()
    work.read(instance)
    if _canonical(instance) not in work.choices(choices):
        yield ValidationError("is none of the choices")


def _const(_validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    _work.get().read(instance, wanted)
    if _canonical(instance) != _canonical(wanted):
        yield ValidationError("is not the one value")


def _type(validator: Any, types: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not any(validator.is_type(instance, one) for one in ([types] if isinstance(types, str) else types)):
        yield ValidationError("is of another type")


_encode: Final = json.JSONEncoder(sort_keys=True).encode


def _canonical(value: Any) -> str:
    return _encode(value if isinstance(value, str) else _integers(value))


def _integers(value: Any) -> Any:
    """1.0 and 1 are the same number in JSON."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_integers(one) for one in value]
        case dict():
            return {key: _integers(one) for key, one in value.items()}
        case _:
            return value


@lru_cache(maxsize=1000)
def _compiled(pattern: str) -> TypeAdapter[str]:
    # pydantic's engine is Rust's regex: no back-tracking, so no pattern can hang the process.
    return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])


def matches(pattern: str, text: str) -> bool:
    """Whether *pattern* is found in *text*; raises :exc:`~pydantic_core.SchemaError` for a pattern that is none."""
    try:
        _compiled(pattern).validate_python(text)
    except NoMatch:
        return False
    return True


def _elements(keyword: str, expected: Any, instance: Any) -> int:
    """Return how many elements a keyword may go through itself, apart from what their own schemas cost."""
    match keyword:
        case "items" | "contains" | "additionalProperties" | "propertyNames" | "prefixItems":
            return len(instance) if isinstance(instance, dict | list) else 0
        case "properties" | "required" | "dependentSchemas" | "allOf" | "anyOf" | "oneOf" | "type":
            return len(expected) if isinstance(expected, dict | list) else 0
        case "$ref":
            return 2  # looking it up
        case "dependentRequired":
            return len(expected) + sum(map(len, expected.values()))
        case _:
            return 0


def _counted(keyword: str, function: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    """Let *function*, which checks *keyword*, spend work: on each call, and for each error, which quotes the value."""
    loops = keyword in _LOOPS
    reads = keyword in {"$ref", "format"}

    def counted(validator: Any, expected: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        work = _work.get()
        work.spend(_KEYWORD + (_elements(keyword, expected, instance) * _ELEMENT if loops else 0))
        if reads:
            work.read(expected, instance if isinstance(instance, str) else None)
        if keyword in _QUOTED:  # the schemas are in the message of an error
            work.read(expected)
        if keyword in _BRANCHES:  # each false among them quotes the value
            refusing = expected.count(False) if isinstance(expected, list) else int(expected is False)
            work.spend(refusing * work.size(instance) // _CHARACTERS if refusing else 0)
        for error in function(validator, expected, instance, schema) or ():
            if keyword not in _SILENT and not isinstance(error.validator, str):  # its own, not of a schema inside
                work.read(instance)
            work.spend(_KEYWORD)
            yield error

    return counted


_LOOPS: Final = frozenset(
    {"items", "contains", "additionalProperties", "propertyNames", "prefixItems", "properties", "required"}
    | {"dependentRequired", "dependentSchemas", "allOf", "anyOf", "oneOf", "type", "$ref"}
)
_QUOTED: Final = frozenset({"oneOf", "not"})
_BRANCHES: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "contains", "propertyNames"})
_own: Final = {
    **Draft202012Validator.VALIDATORS,
    "pattern": _pattern,
    "uniqueItems": _unique,
    "enum": _enum,
    "const": _const,
    "type": _type,
}
#: Their errors quote nothing.
_SILENT: Final = frozenset({"pattern", "uniqueItems", "enum", "const", "type", "required", "$ref"})
_Validator: Final[Any] = extend(  # type: ignore[no-untyped-call]  # the stubs leave it open
    Draft202012Validator, {name: _counted(name, function) for name, function in _own.items()}
)


def _format(function: Callable[[str], Any]) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or bool(function(value))


_CHECKER: Final = FormatChecker(formats=())
for _name, _function in formats.CHECKED.items():
    _CHECKER.checkers[_name] = (_format(_function), ValueError)


def pointer(path: Any) -> str:
    return "".join(f"/{escape(str(part))}" for part in path)


def shorten(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
