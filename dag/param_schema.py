"""Which part of JSON Schema a DAG may declare its params with.

Left out is what reaches outside the schema, what would be stored and ignored, and what costs without bound.  A keyword
that does not exist is refused as well: ``params: {day: …}`` is a mistake that JSON Schema itself would swallow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jsonschema import Draft202012Validator
from pydantic_core import SchemaError

from dag import formats, graph, param_values
from dag.param_values import pointer, shorten
from dag.references import escape

if TYPE_CHECKING:
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
_NAMED: Final = {"properties": False, "$defs": False, "dependentSchemas": True}
_PLAIN: Final = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"}
    | {"type", "enum", "const", "$ref", "format", "pattern", "minLength", "maxLength"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    | {"minItems", "maxItems", "uniqueItems", "minContains", "maxContains"}
    | {"required", "dependentRequired", "minProperties", "maxProperties"}
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
_LONGEST_PATTERN: Final = 1_000


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
    for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(schema):
        findings.add(
            "/params" + pointer(error.absolute_path),
            "bad_schema",
            f"It is not JSON Schema: {shorten(error.message)}.",
            "See json-schema.org, draft 2020-12.",
        )
    if not findings:
        _check_defaults(schema, findings)


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
            if target not in self.same or "%" in target:
                hint = "Refer to # or #/$defs/name, inside this schema."
                self.findings.add(
                    _doc(at) + "/$ref", "bad_schema", f"{shorten(target)!r} leads to no schema in here.", hint
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
                self._inner(one, f"{place}/{escape(name)}", at, same=_NAMED[keyword])
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
                f"JSON Schema has no keyword {shorten(keyword)!a}.",
                self.findings.meant(keyword, _KNOWN, hint),
            )

    def _inner(self, schema: Any, place: str, at: str, *, same: bool) -> None:
        self.stack.append((schema, place))
        if same:
            self.same[at].append(place)

    def _text(self, keyword: str, value: str, place: str) -> None:
        if keyword == "format" and value not in formats.CHECKED:
            hint = self.findings.meant(value, formats.CHECKED, f"Checked are: {', '.join(sorted(formats.CHECKED))}.")
            self.findings.add(place, "not_supported", f"The format {shorten(value)!a} cannot be checked.", hint)
        if keyword == "pattern" and (why := _why_no_pattern(value)):
            self.findings.add(
                place,
                "bad_schema",
                f"The pattern cannot be used: {why}.",
                "Look-around and back-references do not exist here.",
            )


def _check_defaults(schema: dict[str, Any], findings: Findings) -> None:
    """A default that does not fit would make every trigger fail that relies on it."""
    for name, inner in schema.get("properties", {}).items():
        if isinstance(inner, dict) and "default" in inner:
            param_values.validate_default(schema, name, findings)


def _why_no_pattern(pattern: str) -> str:
    if len(pattern) > _LONGEST_PATTERN:
        return f"it is longer than {_LONGEST_PATTERN} characters"
    try:
        param_values.matches(pattern, "")
    except SchemaError as wrong:
        reasons = [line.removeprefix("error: ") for line in str(wrong).splitlines() if line.startswith("error: ")]
        return reasons[0] if reasons else "it is no regular expression"
    return ""


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


def _doc(place: str) -> str:
    """Return a place in the schema as a place in the document."""
    return "/params" + place.removeprefix("#")
