"""The types of the document's fields, each with its rule in Python and the same rule in JSON Schema."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator, Field, Strict, StringConstraints, WithJsonSchema

from dag import durations, ids
from dag.ids import TaskId

CALL_PATTERN: Final = (
    r"^[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*$"
)
INTERPRETER_PATTERN: Final = r"^(?![\s\S]*\$\{)(?:/[^\u0000-\u001f\u007f]{1,999}|[A-Za-z0-9_][A-Za-z0-9_.+-]{0,249})$"
ENV_NAME_PATTERN: Final = r"^(?!RUNYARD_)[A-Za-z_][A-Za-z0-9_]{0,249}$"
CWD_PATTERN: Final = r"^(?!/)(?!(?:[\s\S]*/)?\.\.(?:/|$))(?![\s\S]*\$\{)[\s\S]+$"
#: A token of RFC 9110.
HEADER_PATTERN: Final = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}$"
URL_PATTERN: Final = r"^(?:https?://|\$\{)[\s\S]+$"
LABEL_PATTERN: Final = r"^[^\u0000-\u001f\u007f]{1,100}$"
#: What the brokers behind the queue executors take; .DQ and .XQ are Dramatiq's own queues beside one.
QUEUE_PATTERN: Final = r"^(?![\s\S]*\.[DX]Q$)[a-zA-Z_][a-zA-Z0-9._-]{0,99}$"

#: Linux takes no argument and no variable of 128 KiB or more.
LONGEST_WORD: Final = 100_000
LONGEST_SOURCE: Final = 256 * 1024
LONGEST_PROSE: Final = 10_000
LONGEST_URL: Final = 8_000
INT32_MAX: Final = 2**31 - 1

_CALL: Final = re.compile(CALL_PATTERN[1:-1])
_INTERPRETER: Final = re.compile(INTERPRETER_PATTERN[1:-1])
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,249}")
_QUEUE: Final = re.compile(QUEUE_PATTERN[1:-1])
_HEADER: Final = re.compile(HEADER_PATTERN[1:-1])
_URL: Final = re.compile(URL_PATTERN[1:-1])
_LABEL: Final = re.compile(LABEL_PATTERN[1:-1])


class Wrong(ValueError):
    """A value that breaks a rule of its field; carries what a :class:`~dag.errors.Problem` needs."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def _task_id(text: str) -> str:
    if not ids.is_task_id(text):
        rule = "1 to 250 letters, digits, _ and -, the first a letter or _."
        raise Wrong("bad_id", f"{shown(text)} cannot be a task id.", f"A task id is {rule}")
    return text


def _id(text: str) -> str:
    if not ids.is_id(text):
        rule = "1 to 250 letters, digits and . _ ~ : + -, and neither . nor .. alone."
        raise Wrong("bad_id", f"{shown(text)} cannot be an id.", f"An id is {rule}")
    return text


def _queue(text: str) -> str:
    if text.endswith((".DQ", ".XQ")):
        message = f"{shown(text)} ends like a queue that Dramatiq makes itself."
        raise Wrong("bad_queue", message, "Choose a name that ends in neither .DQ nor .XQ.")
    if not _QUEUE.fullmatch(text):
        rule = "A queue is 1 to 100 letters, digits and . _ -, the first a letter or _."
        raise Wrong("bad_queue", f"{shown(text)} cannot be a queue.", rule)
    return text


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise Wrong(
            "bad_duration", f"A duration is a text, not {kind_of(value)}.", 'Write it as ISO 8601, such as "PT30S".'
        )
    try:
        return durations.parse(value)
    except durations.BadDuration as wrong:
        raise Wrong("bad_duration", wrong.message, wrong.hint) from None


def _positive(length: timedelta) -> timedelta:
    if not length:
        raise Wrong(
            "bad_duration", "No time at all makes no sense here.", "Choose a longer one; leave it out for no limit."
        )
    return length


def at_most(longest: timedelta) -> AfterValidator:
    """Refuse durations longer than *longest*."""

    def check(length: timedelta) -> timedelta:
        if length > longest:
            limit = durations.format_duration(longest)
            raise Wrong("bad_duration", f"At most {limit} is possible here.", f"Choose {limit} or less.")
        return length

    return AfterValidator(check)


def _jitter(value: object) -> object:
    match value:
        case bool():
            return 0.5 if value else 0.0
        case int() | float() if 0 <= value <= 1:
            return float(value)
        case _:
            raise Wrong(
                "bad_jitter", "Jitter is a number from 0 to 1, or true or false.", "Write 0.2, or true for 0.5."
            )


def _integral(value: object) -> object:
    """JSON knows no integers: 3.0 is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _env_name(text: str) -> str:
    if not _ENV_NAME.fullmatch(text):
        rule = "A name is letters, digits and _, and does not begin with a digit."
        raise Wrong("bad_env_name", f"{shown(text)} cannot be the name of an environment variable.", rule)
    if text.startswith("RUNYARD_"):
        raise Wrong(
            "reserved_env_name", f"{shown(text)} is Runyard's own.", "Choose a name that does not begin with RUNYARD_."
        )
    return text


def _cwd(text: str) -> str:
    hint = 'Name a folder inside the code folder, such as "reports".'
    if "${" in text:
        raise Wrong(
            "reference_not_allowed",
            "A working folder holds no reference.",
            "Pass the value by env and change the folder in the task.",
        )
    if text.startswith("/"):
        raise Wrong("bad_cwd", f"{shown(text)} is absolute; cwd is relative to the code folder.", hint)
    if ".." in text.split("/"):
        raise Wrong("bad_cwd", f"{shown(text)} climbs out with '..'.", hint)
    return text


def _call(text: str) -> str:
    if not _CALL.fullmatch(text):
        raise Wrong(
            "bad_call", f"{shown(text)} names no function.", 'Write "module:function", such as "warehouse.load:run".'
        )
    return text


def _interpreter(text: str) -> str:
    if "${" in text:
        raise Wrong("reference_not_allowed", "The interpreter cannot be a reference.", "Write its path or its name.")
    if not _INTERPRETER.fullmatch(text):
        hint = 'Write an absolute path, or a name such as "python3.12".'
        raise Wrong("bad_interpreter", f"{shown(text)} is neither a path nor the name of a program.", hint)
    return text


def _header(text: str) -> str:
    if not _HEADER.fullmatch(text):
        hint = "A name is letters, digits and dashes, such as Content-Type."
        raise Wrong("bad_header", f"{shown(text)} cannot be the name of a header.", hint)
    return text


def _url(text: str) -> str:
    if not _URL.fullmatch(text):
        message = f"{shown(text)} is no address of HTTP."
        raise Wrong("bad_url", message, "Begin it with https://, http:// or a reference.")
    return text


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise Wrong(
            "bad_label",
            f"{shown(text)} is empty, longer than 100 characters or holds a control character.",
            "Choose a short word.",
        )
    return text


def _unique(labels: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({label for label in labels if labels.count(label) > 1}) if len(set(labels)) < len(labels) else []
    if twice:
        raise Wrong("duplicate", f"{shown(twice[0])} is there twice.", "Name it once.")
    return labels


def _true_is_empty(value: object) -> object:
    return {} if value is True else value


def command_form(value: object) -> str | None:
    """Tell a list of arguments from a line for the shell."""
    return "<argv>" if isinstance(value, list | tuple) else "<line>" if isinstance(value, str) else None


def kind_of(value: object) -> str:
    """Say what a JSON value is."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case _:
            return "an object"


def shown(text: str) -> str:
    """Quote *text* for a message: one short line, control characters visible."""
    limit = 80
    return ascii(text if len(text) <= limit else text[: limit - 3] + "...")


def _schema(**keywords: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **keywords})


integral = BeforeValidator(_integral)
unique = AfterValidator(_unique)
true_is_empty = BeforeValidator(_true_is_empty)
also_true = WithJsonSchema({"anyOf": [{"type": "object", "additionalProperties": False}, {"const": True}]})

TaskName = Annotated[TaskId, AfterValidator(_task_id), _schema(pattern=ids.TASK_ID_PATTERN)]
Id = Annotated[str, AfterValidator(_id), _schema(pattern=ids.OTHER_ID_PATTERN)]
Queue = Annotated[str, AfterValidator(_queue), _schema(pattern=QUEUE_PATTERN)]
LostContact = Literal["kill", "continue"]
Duration = Annotated[timedelta, BeforeValidator(_duration), _schema(format="duration", pattern=durations.PATTERN)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
Flag = Annotated[bool, Strict()]
Int32 = Annotated[int, Strict(), Ge(-INT32_MAX - 1), Le(INT32_MAX), integral]
PositiveInt32 = Annotated[int, Strict(), Ge(1), Le(INT32_MAX), integral]
Retries = Annotated[int, Strict(), Ge(0), Le(1000), integral]
Jitter = Annotated[
    float,
    BeforeValidator(_jitter),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "boolean"}]}),
]
EnvName = Annotated[str, AfterValidator(_env_name), _schema(pattern=ENV_NAME_PATTERN)]
EnvValue = Annotated[str, StringConstraints(max_length=LONGEST_WORD)]
Word = Annotated[str, StringConstraints(max_length=LONGEST_WORD)]
Argv = Annotated[
    tuple[Word, ...],
    # What the code says about the program's name, checks.py says: its place is the first element.
    Field(
        min_length=1, json_schema_extra={"prefixItems": [{"type": "string", "minLength": 1, "maxLength": LONGEST_WORD}]}
    ),
]
Line = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_WORD)]
Source = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_SOURCE)]
Prose = Annotated[str, StringConstraints(max_length=LONGEST_PROSE)]
Label = Annotated[str, AfterValidator(_label), _schema(pattern=LABEL_PATTERN)]
Cwd = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000),
    AfterValidator(_cwd),
    _schema(pattern=CWD_PATTERN, maxLength=1000),
]
Call = Annotated[
    str, StringConstraints(max_length=1000), AfterValidator(_call), _schema(pattern=CALL_PATTERN, maxLength=1000)
]
Interpreter = Annotated[str, AfterValidator(_interpreter), _schema(pattern=INTERPRETER_PATTERN)]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Url = Annotated[
    str,
    StringConstraints(max_length=LONGEST_URL),
    AfterValidator(_url),
    _schema(pattern=URL_PATTERN, maxLength=LONGEST_URL),
]
HeaderName = Annotated[str, AfterValidator(_header), _schema(pattern=HEADER_PATTERN)]
Text = Annotated[str, StringConstraints(max_length=LONGEST_WORD)]
