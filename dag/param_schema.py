"""JSON Schema for params: which part of it is taken, and validation whose cost is bounded.

A schema comes from the author of a DAG, the values from whoever may trigger it; both are strangers to the process that
validates.  So: references stay inside the schema and must not run in a circle, regular expressions run on a linear-time engine,
and the work of one validation has a ceiling.  A keyword that would be ignored is refused.
"""

from __future__ import annotations

import json
import re
from contextvars import ContextVar
from copy import deepcopy
from datetime import date, datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend
from pydantic import StringConstraints, TypeAdapter
from pydantic import ValidationError as NoMatch
from pydantic_core import SchemaError

from dag import durations, graph
from dag.references import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dag.findings import Findings

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

#: Keywords that hold one schema, a list of schemas, an object of schemas; those marked True look at the same value.
_ONE: Final = {
    "items": False,
    "contains": False,
    "additionalProperties": False,
    "propertyNames": False,
    "not": True,
    "if": True,
    "then": True,
    "else": True,
}
_LIST: Final = {"prefixItems": False, "allOf": True, "anyOf": True, "oneOf": True}
_NAMED: Final = {"properties": False, "$defs": None, "dependentSchemas": True}
_PLAIN: Final = frozenset(
    "title description default examples deprecated readOnly writeOnly $comment type enum const multipleOf maximum exclusiveMaximum minimum "
    "exclusiveMinimum maxLength minLength pattern format maxItems minItems uniqueItems maxContains minContains required maxProperties "
    "minProperties dependentRequired $ref".split()
)
_KNOWN: Final = _PLAIN | _ONE.keys() | _LIST.keys() | _NAMED.keys()
#: Part of the standard and refused, with the reason.
_REFUSED: Final = {
    "$id": "References stay inside the schema, by #/$defs/name.",
    "$anchor": "Refer by #/$defs/name.",
    "$dynamicRef": "Refer by #/$defs/name.",
    "$dynamicAnchor": "Refer by #/$defs/name.",
    "$vocabulary": "Leave it out.",
    "patternProperties": "Use propertyNames with a pattern, and additionalProperties.",
    "unevaluatedProperties": "Use additionalProperties.",
    "unevaluatedItems": "Use items.",
    "contentEncoding": "Nothing would be decoded; say it in the description.",
    "contentMediaType": "Nothing would be checked; say it in the description.",
    "contentSchema": "Nothing would be checked; say it in the description.",
    "definitions": "Write $defs.",
}
#: Objects, lists and values in a schema.
_MOST_NODES: Final = 5_000
#: Keywords looked at in one validation.
_MOST_WORK: Final = 200_000
_LONGEST_PATTERN: Final = 1_000

_work: ContextVar[list[int]] = ContextVar("work")


class _TooMuch(Exception):
    """A validation has used up its work."""


def check(schema: Any, findings: Findings) -> None:
    """Tell *findings* of everything that is wrong with *schema*, the ``params`` of a document."""
    if not isinstance(schema, dict):
        findings.add(
            "/params", "wrong_type", "params is a JSON Schema: an object.", '{"type": "object", "properties": {…}}'
        )
        return
    if _nodes(schema) > _MOST_NODES:
        findings.add(
            "/params",
            "too_large",
            f"The schema has more than {_MOST_NODES:,} parts.",
            "Declare less, or take one param of any JSON.",
        )
        return
    if schema.get("type", "object") != "object":
        findings.add("/params/type", "bad_schema", "Params are an object.", 'Write "type": "object".')
    if schema.get("$schema", _DIALECT) not in {_DIALECT, _DIALECT + "#"}:
        findings.add(
            "/params/$schema",
            "not_supported",
            "Only JSON Schema 2020-12 is understood.",
            f'Leave $schema out, or write "{_DIALECT}".',
        )
    _Walk(schema, findings).all()
    if findings:
        return
    for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema):
        pointer = "/params" + _pointer(error.absolute_path)
        findings.add(
            pointer,
            "bad_schema",
            f"It is not JSON Schema: {_shorten(error.message)}.",
            "See json-schema.org, draft 2020-12.",
        )
    if not findings:
        _check_defaults(schema, findings)


def filled(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of *given* with the defaults of missing properties, also inside the objects that are there."""
    whole = deepcopy(dict(given))
    _fill(schema, whole, schema)
    return whole


def validate(schema: Mapping[str, Any], params: Mapping[str, Any], findings: Findings) -> None:
    """Tell *findings* where *params* does not fit *schema*."""
    strict = {"additionalProperties": False, **schema, "type": "object"}
    _run(strict, strict, params, "/params", "bad_param", findings)


class _Walk:
    """A look at every subschema, before the library sees any."""

    def __init__(self, schema: dict[str, Any], findings: Findings) -> None:
        self.findings = findings
        self.stack: list[tuple[Any, str]] = [(schema, "#")]
        #: pointer → the schemas that look at the same value, each by its pointer
        self.same: dict[str, list[str]] = {}
        self.refs: list[tuple[str, str]] = []

    def all(self) -> None:
        while self.stack:
            schema, at = self.stack.pop()
            self.same[at] = []
            if isinstance(schema, dict):
                for keyword, value in schema.items():
                    self._keyword(keyword, value, at)
        for at, target in self.refs:
            if target not in self.same:
                hint = "Refer to # or #/$defs/name, inside this schema."
                self.findings.add(
                    _doc(at) + "/$ref", "bad_schema", f"{_shorten(target)!r} leads to no schema in here.", hint
                )
        for ring in graph.cycles({at: [one for one in others if one in self.same] for at, others in self.same.items()}):
            way = " -> ".join([*ring[::-1], ring[-1]][:12])
            self.findings.add(
                _doc(ring[0]),
                "bad_schema",
                f"The schema goes round in a circle: {way}.",
                "Put properties or items in between.",
            )

    def _keyword(self, keyword: str, value: Any, at: str) -> None:
        place = f"{at}/{escape(keyword)}"
        if keyword in _ONE:
            self._inner(value, place, at, same=_ONE[keyword])
        elif keyword in _LIST and isinstance(value, list):
            for no, one in enumerate(value):
                self._inner(one, f"{place}/{no}", at, same=_LIST[keyword])
        elif keyword in _NAMED and isinstance(value, dict):
            for name, one in value.items():
                self._inner(one, f"{place}/{escape(name)}", at, same=bool(_NAMED[keyword]))
        elif keyword == "$ref" and isinstance(value, str):
            self.refs.append((at, value))
            self.same[at].append(value)
        elif keyword in {"pattern", "format"} and isinstance(value, str):
            self._text(keyword, value, _doc(place))
        elif keyword in _REFUSED:
            self.findings.add(_doc(place), "not_supported", f"{keyword} is not supported in params.", _REFUSED[keyword])
        elif keyword not in _KNOWN and not keyword.startswith("x-") and not (at == "#" and keyword == "$schema"):
            hint = (
                f'To declare a param, write "properties": {{"{keyword}": {{…}}}}.'
                if at == "#"
                else "Leave it out, or call it x-…"
            )
            self.findings.add(
                _doc(place),
                "unknown_field",
                f"JSON Schema has no keyword {ascii(_shorten(keyword))}.",
                self.findings.meant(keyword, _KNOWN, hint),
            )

    def _inner(self, schema: Any, place: str, at: str, *, same: bool) -> None:
        self.stack.append((schema, place))
        if same:
            self.same[at].append(place)

    def _text(self, keyword: str, value: str, place: str) -> None:
        if keyword == "format" and value not in FORMATS:
            hint = self.findings.meant(value, FORMATS, f"Checked are: {', '.join(sorted(FORMATS))}.")
            self.findings.add(place, "not_supported", f"The format {ascii(_shorten(value))} cannot be checked.", hint)
        if keyword == "pattern" and (why := _why_no_pattern(value)):
            self.findings.add(
                place,
                "bad_schema",
                f"The pattern cannot be used: {why}.",
                "Look-around and back-references do not exist here.",
            )


def _check_defaults(schema: dict[str, Any], findings: Findings) -> None:
    """A default that does not fit would make every trigger fail that relies on it."""
    for name, inner in (schema.get("properties") or {}).items():
        if isinstance(inner, dict) and "default" in inner:
            at = f"/params/properties/{escape(name)}/default"
            _run(schema, inner, inner["default"], at, "bad_default", findings)


def _run(
    root: Mapping[str, Any], schema: Mapping[str, Any], value: Any, at: str, code: str, findings: Findings
) -> None:
    token = _work.set([_MOST_WORK])
    try:
        validator = _Validator(root, format_checker=_CHECKER).evolve(schema=schema)
        for error in validator.iter_errors(value):
            pointer, message = at + _pointer(error.absolute_path), _message(error)
            findings.add(pointer + message[0], code, message[1], message[2])
    except (_TooMuch, RecursionError):
        findings.add(
            at,
            "too_much_work",
            "Checking it against the schema takes too much work.",
            "Make the params smaller or the schema simpler.",
        )
    except (ArithmeticError, ValueError) as wrong:
        findings.add(at, code, f"It cannot be checked: {wrong}.", "Use smaller numbers.")
    finally:
        _work.reset(token)


def _message(error: ValidationError) -> tuple[str, str, str]:
    """Return (rest of the pointer, message, hint) of one error of the library."""
    keyword, expected = str(error.validator), error.validator_value
    if keyword == "additionalProperties" and expected is False and isinstance(error.instance, dict):
        known = sorted(error.schema.get("properties", {})) if isinstance(error.schema, dict) else []
        names = sorted(set(error.instance) - set(known))
        listed = ", ".join(ascii(_shorten(name)) for name in names[:5])
        rest = f"/{escape(names[0])}" if len(names) == 1 else ""
        return rest, f"Not declared: {listed}.", f"Declared are: {', '.join(known) or 'none'}."
    if keyword == "required":
        missing = next((name for name in expected if name not in error.instance), "")
        return f"/{escape(missing)}", f"{missing!r} is required.", "Pass it."
    if keyword == "type":
        kinds = " or ".join(expected) if isinstance(expected, list) else expected
        return "", f"It must be of type {kinds}.", ""
    if keyword in {"enum", "const"}:
        choices = expected if keyword == "enum" else [expected]
        return (
            "",
            "It is none of the values that are possible.",
            _shorten("Possible: " + ", ".join(json.dumps(one) for one in choices), 300),
        )
    if keyword == "format":
        return "", f"It is no {expected}.", _FORMAT_EXAMPLES.get(str(expected), "")
    if keyword in {"anyOf", "oneOf", "not", "if", "allOf", "$ref"}:
        return "", f"It does not fit {keyword} of the schema.", "See the params of the DAG."
    return "", f"It breaks the rule {keyword}: {_shorten(json.dumps(expected))}.", ""


def _fill(schema: Any, value: Any, root: Mapping[str, Any], depth: int = 0) -> None:
    schema = _target(schema, root)
    if not isinstance(schema, dict) or not isinstance(value, dict) or depth > 64:  # noqa: PLR2004  # no value is deeper
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


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:  # noqa: ARG001  # the library's signature
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError(f"does not match {pattern}")


def _unique(validator: Any, wanted: bool, instance: Any, schema: Any) -> Iterator[ValidationError]:  # noqa: ARG001, FBT001  # the library's signature
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


def _matches(pattern: str, text: str) -> bool:
    try:
        _compiled(pattern).validate_python(text)
    except NoMatch:
        return False
    return True


def _why_no_pattern(pattern: str) -> str:
    if len(pattern) > _LONGEST_PATTERN:
        return f"it is longer than {_LONGEST_PATTERN} characters"
    try:
        _compiled(pattern)
    except SchemaError as wrong:
        lines = [line.strip() for line in str(wrong).splitlines() if "error:" in line]
        return lines[0].removeprefix("error: ") if lines else "it is no regular expression"
    return ""


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*args: Any) -> Any:
        left = _work.get()
        left[0] -= 1
        if left[0] < 0:
            raise _TooMuch
        return function(*args)

    return counted


_own: Final = {**Draft202012Validator.VALIDATORS, "pattern": _pattern, "uniqueItems": _unique}
_Validator: Final[Any] = extend(Draft202012Validator, {name: _counted(function) for name, function in _own.items()})


def _is_datetime(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", text, re.ASCII):
        return False
    whole = re.sub(r"\.\d+", "", text.upper().replace("Z", "+00:00"))
    return datetime.fromisoformat(whole).tzinfo is not None


def _is_date(text: str) -> bool:
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII)) and date.fromisoformat(text) is not None


def _is_time(text: str) -> bool:
    return _is_datetime(f"2000-01-01T{text}")


def _is_duration(text: str) -> bool:
    return durations.parse(text) is not None


def _is_uuid(text: str) -> bool:
    return str(UUID(text)) == text.lower()


def _is_email(text: str) -> bool:
    return bool(re.fullmatch(r"[^@\s]{1,64}@[^@\s.]+(?:\.[^@\s.]+)*", text))


def _is_uri(text: str) -> bool:
    return (
        text.isascii()
        and bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]*", text))
        and urlsplit(text) is not None
    )


def _is_hostname(text: str) -> bool:
    label = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    return len(text) <= 253 and bool(re.fullmatch(rf"{label}(?:\.{label})*", text))  # noqa: PLR2004  # RFC 1123


#: The formats that are really checked; any other is refused in a schema.
FORMATS: Final[dict[str, Callable[[str], Any]]] = {
    "date": _is_date,
    "date-time": _is_datetime,
    "duration": _is_duration,
    "email": _is_email,
    "hostname": _is_hostname,
    "ipv4": IPv4Address,
    "ipv6": IPv6Address,
    "time": _is_time,
    "uri": _is_uri,
    "uuid": _is_uuid,
}
_FORMAT_EXAMPLES: Final = {
    "date": 'Such as "2026-01-31".',
    "date-time": 'Such as "2026-01-31T02:30:00Z"; the offset is needed.',
    "duration": 'Such as "PT30S" or "P1D".',
    "time": 'Such as "02:30:00Z"; the offset is needed.',
}


def _format(function: Callable[[str], Any]) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or bool(function(value))


_CHECKER: Final = FormatChecker(formats=())
for _name, _function in FORMATS.items():
    _CHECKER.checkers[_name] = (_format(_function), ValueError)


def _nodes(value: Any) -> int:
    count, stack = 0, [value]
    while stack and count <= _MOST_NODES:
        here = stack.pop()
        count += 1
        if isinstance(here, dict):
            stack.extend(here.values())
        elif isinstance(here, list):
            stack.extend(here)
    return count


def _pointer(path: Any) -> str:
    return "".join(f"/{escape(str(part))}" for part in path)


def _doc(place: str) -> str:
    """Return a place in the schema as a place in the document."""
    return "/params" + place.removeprefix("#")


def _shorten(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
