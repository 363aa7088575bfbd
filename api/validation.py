"""What FastAPI and pydantic find wrong with a request, in our words: place, rule, way out."""

import difflib
import reprlib
from typing import TYPE_CHECKING, Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response

from api.problems import INVALID, respond
from dag.errors import Problem
from dag.fields import Wrong

if TYPE_CHECKING:
    from collections.abc import Sequence

_TYPES: Final = {
    "string_type": "a text",
    "string_unicode": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "datetime_parsing": "a moment such as 2026-11-22T09:30:00Z",
    "datetime_from_date_parsing": "a moment such as 2026-11-22T09:30:00Z",
    "datetime_object_invalid": "a moment such as 2026-11-22T09:30:00Z",
    "timezone_aware": "a moment with its offset, such as 2026-11-22T09:30:00Z",
}
_SENTENCES: Final = {
    "missing": ("missing_field", "{name} is missing."),
    "greater_than_equal": ("out_of_range", "{name} must be at least {ge}."),
    "less_than_equal": ("out_of_range", "{name} must be at most {le}."),
    "string_too_long": ("too_long", "{name} has more than {max_length} characters."),
    "string_too_short": ("too_short", "{name} must have at least {min_length} characters."),
    "too_long": ("too_long", "{name} has more than {max_length} items."),
    "too_short": ("too_short", "{name} must have at least {min_length} items."),
    "string_pattern_mismatch": ("wrong_form", "{name} does not match {pattern}."),
    "enum": ("unknown_value", "{name}: {given} is not one of {expected}."),
    "literal_error": ("unknown_value", "{name}: {given} is not one of {expected}."),
}
#: The kinds that our own validators raise; they write their own sentences.
OURS: Final = frozenset(
    {
        "instant",
        "invalid_id",
        "admin_prefix",
        "work_prefix",
        "queues_without_work",
        "nothing_to_change",
        "bad_filter",
        "nul_character",
    }
)
_MARKS: Final = frozenset({"[key]"})


async def on_invalid(request: Request, error: Exception) -> Response:
    """Answer a request that does not fit its declaration."""
    if not isinstance(error, RequestValidationError):
        raise error
    problems = explain(error.errors(), _known_fields(request))
    first = problems[0]
    detail = first.message if len(problems) == 1 else f"{len(problems)} things are wrong with the request."
    return respond(request.state.request_id, INVALID, detail, problems=problems)


def explain(found: "Sequence[Any]", known: "Sequence[str]") -> list[Problem]:
    """Return each of pydantic's errors as a problem; *known* are the fields of the body."""
    return [_problem(error, known) for error in found]


def _problem(error: Any, known: "Sequence[str]") -> Problem:
    where, *rest = error["loc"]
    place = [str(part).replace("~", "~0").replace("/", "~1") for part in rest if part not in _MARKS]
    pointer = "".join(f"/{part}" for part in (place if where == "body" else [str(where), *place]))
    code, message, hint = _words(error, _name(rest), known if len(rest) == 1 else ())
    return Problem(pointer=pointer, code=code, message=message, hint=hint)


def _name(place: "Sequence[Any]") -> str:
    """Return what a sentence calls it: the field, and which item of it."""
    match place:
        case []:
            return "body"
        case [*_, field, int() as number]:
            return f"{field}[{number}]"
        case _:
            return str(place[-1])


def _words(error: Any, name: str, known: "Sequence[str]") -> tuple[str, str, str]:
    kind: str = error["type"]
    if kind == "missing" and name == "body":
        return (
            "missing_body",
            "There is no body.",
            "Send a JSON object with Content-Type: application/json; {} is empty.",
        )
    if kind == "extra_forbidden":
        return "unknown_field", f"There is no field {name[:100]!r} here.", _meant(name[:100], known)
    if kind in _TYPES:
        return "wrong_type", f"{name} must be {_TYPES[kind]}.", ""
    if isinstance(cause := (error.get("ctx") or {}).get("error"), Wrong):  # a field that the document has as well
        return cause.code, cause.message, cause.hint
    if kind in OURS:
        return kind, f"{error['msg']}.", ""
    code, sentence = _SENTENCES.get(kind, ("wrong_value", "{name} is not acceptable: {msg}."))
    given = reprlib.repr(error.get("input"))
    return code, sentence.format(name=name, given=given, msg=error["msg"], **error.get("ctx") or {}), ""


def _meant(name: str, known: "Sequence[str]") -> str:
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.7):
        return f"Did you mean {close[0]!r}?"
    return f"Known here: {', '.join(known)}." if known else "Leave it out."


def _known_fields(request: Request) -> list[str]:
    body = getattr(request.scope.get("route"), "body_field", None)
    fields = getattr(getattr(body, "field_info", None), "annotation", None)
    return list(getattr(fields, "model_fields", {}))
