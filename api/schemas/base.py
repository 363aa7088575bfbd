"""What all schemas share.

Models here are the public contract: they read requests and describe answers.  Answers are written by the ``render``
function beside their model (once, as they leave), and the tests hold the two together.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


class RequestBody(BaseModel):
    """A request body: what it does not know it refuses."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """An answer: everything it has is always there, null where there is nothing to say."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def instant(moment: datetime) -> str:
    """Return *moment* as RFC 3339 in UTC, always with microseconds, so that texts sort by time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def maybe(moment: datetime | None) -> str | None:
    return None if moment is None else instant(moment)


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds from *start* to *end*, None while one of them is not known."""
    return None if start is None or end is None else (end - start).total_seconds()


_NUMBER: Final = re.compile(r"\s*[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?\s*", re.ASCII)


def _text_only(value: Any) -> Any:
    # A text of digits would be read as seconds since 1970: a year, a mistyped number, whatever was meant.
    if not isinstance(value, str | datetime) or (isinstance(value, str) and _NUMBER.fullmatch(value) is not None):
        raise PydanticCustomError("instant", "A moment is a text such as 2026-11-22T09:30:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("instant", "A moment lies between the years 1 and 9999 in UTC") from None


def _clean(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul_character", "The text holds a NUL character")
    return text


#: Text that every database can keep.
Clean = AfterValidator(_clean)
#: A moment in a request: RFC 3339 with an offset; read as UTC.
Moment = Annotated[AwareDatetime, BeforeValidator(_text_only), AfterValidator(_in_utc)]
#: A moment in an answer.
Instant = Annotated[
    str,
    Field(
        json_schema_extra={"format": "date-time"},
        description="RFC 3339 in UTC with microseconds.",
        examples=["2026-11-22T09:30:00.123456Z"],
    ),
]

#: When the story of the examples happens.
EXAMPLE_AT: Final = "2026-11-22T09:30:00.123456Z"


class Problem(Answer):
    """RFC 9457 problem details. Branch on `code`; `detail` is for people."""

    type: str = Field(description="A link to what this kind of problem means.", examples=["/docs#problem-not_found"])
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong in this case.")
    code: str = Field(description="The kind of problem; stable over releases.", examples=["not_found"])
    retryable: bool = Field(description="Whether the same request, unchanged, may work later.")
    instance: str = Field(description="This very answer: the `Request-Id` of the response, as in the service's log.")
    hint: str | None = Field(default=None, description="The way out.")
    errors: list["ProblemDetail"] | None = Field(
        default=None, description="Everything that is wrong with the input, at once."
    )
    next_offset: int | None = Field(default=None, description="`log_gap` only: how much of the log there is.")


class ProblemDetail(Answer):
    """One thing wrong with an input."""

    pointer: str = Field(
        description="Where: a JSON pointer into the body; `/query/…`, `/path/…` and `/header/…` for the rest.",
        examples=["/tasks/load/depends_on/0"],
    )
    code: str = Field(description="Which rule; stable over releases.", examples=["unknown_task"])
    message: str = Field(description="What is wrong.")
    hint: str | None = Field(default=None, description="The way out.")
