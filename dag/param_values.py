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

#: Keywords looked at in one validation.
_MOST_WORK: Final = 50_000
_DEEPEST: Final = 64
_HOME: Final = "urn:params"

_work: ContextVar[list[int]] = ContextVar("work")


class _TooMuch(Exception):
    """A validation has used up its work."""


def filled(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of *given* with the defaults of missing properties, also inside the objects that are there."""
    whole = deepcopy(dict(given))
    _fill(schema, whole, schema)
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
    token = _work.set([_MOST_WORK])
    try:
        for error in validator.iter_errors(value):
            rest, message, hint = _message(error)
            told.findings.add(told.at + pointer(error.absolute_path) + rest, told.code, message, hint or told.hint)
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
            hint = f"Declared are: {', '.join(known) or 'none'}."
        case "required":
            missing = error.message.removesuffix(" is a required property")
            rest, message, hint = f"/{escape(literal_eval(missing))}", f"{missing} is required.", "Pass it."
        case "type":
            message = f"It must be of type {' or '.join(expected) if isinstance(expected, list) else expected}."
        case "enum" | "const":
            choices = expected if keyword == "enum" else [expected]
            message = "It is none of the values that are possible."
            hint = shorten("Possible: " + ", ".join(json.dumps(one) for one in choices), 300)
        case "format":
            message, hint = f"It is no {expected}.", formats.EXAMPLES.get(str(expected), "")
        case "anyOf" | "oneOf" | "not" | "additionalProperties":
            message = f"It does not fit {keyword} of the schema."
        case "None":
            message = "No value is possible here."
        case _:
            message = f"It breaks the rule {keyword}: {shorten(json.dumps(expected))}."
    return rest, message, hint


def _known(value: Any) -> Any:
    """The stubs say that facts of an error may be unset; those of a validation never are."""
    return value


def _fill(schema: Any, value: Any, root: Mapping[str, Any], depth: int = 0) -> None:
    schema = _target(schema, root)
    if not isinstance(schema, dict) or not isinstance(value, dict) or depth > _DEEPEST:
        return
    for name, inner in (schema.get("properties") or {}).items():
        declared = _target(inner, root)
        if name not in value and isinstance(declared, dict):
            source = inner if "default" in inner else declared
            if "default" in source:
                value[name] = deepcopy(source["default"])
        if name in value:
            _fill(inner, value[name], root, depth + 1)


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
    if isinstance(instance, str) and not matches(pattern, instance):
        yield ValidationError(f"does not match {pattern}")


def _unique(_validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if wanted and isinstance(instance, list) and len({_canonical(one) for one in instance}) < len(instance):
        yield ValidationError("has equal items")


def _canonical(value: Any) -> str:
    return json.dumps(_integers(value), sort_keys=True)


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


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any) -> Any:
        left = _work.get()
        left[0] -= 1
        if left[0] < 0:
            raise _TooMuch
        return function(*args)

    return counted


_own: Final = {**Draft202012Validator.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique}
_Validator: Final[Any] = extend(  # type: ignore[no-untyped-call]  # the stubs leave it open
    Draft202012Validator, {name: _counted(function) for name, function in _own.items()}
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
