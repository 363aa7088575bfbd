"""``${...}`` in a document: data that is put in when an attempt starts.  Not code: nothing is called or computed.

``${params.day}`` · ``${outputs.extract.rows[0].name}`` · ``${outputs["my-task"].x}`` · ``${run.logical_date}`` ·
``${try_number}``.  A string that is one whole reference becomes the value itself, with its JSON type.  Inside a longer
string, strings come as they are and everything else as compact JSON.  ``$${`` writes a literal ``${``; a ``$`` before
anything but ``{`` is just a dollar.  Keys of objects are literal text.

Where texts are needed (argv, env), :func:`resolve_text` renders what :func:`resolve` would give.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dag.errors import Problem, RunyardError

#: What ``${run.…}`` may name.
RUN_FIELDS: Final = ("run_id", "dag_id", "run_type", "logical_date", "data_interval_start", "data_interval_end")
ROOTS: Final = ("params", "outputs", "run", "try_number")

_ESCAPE: Final = "Write $${ for a literal ${."
_FORMS: Final = (
    'References are ${params.x}, ${outputs.task.x}, ${outputs["my-task"].x[0]}, ${run.run_id}, ${try_number}. '
    + _ESCAPE
)

_MARK: Final = re.compile(r"\$?\$\{")
_ROOT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A quoted name has no escapes: an id never needs one, and a strange key can be reached in the task itself.
_SEGMENT: Final = re.compile(
    r"\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\[(?P<index>[0-9]{1,9})\]"
    r"|\[\"(?P<double>[^\"\\]*)\"\]|\['(?P<single>[^'\\]*)'\]"
)

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """One ``${…}`` and where it stands."""

    #: ``params``, ``outputs``, ``run`` or ``try_number``.
    root: str
    #: What follows the root: names and list indexes.
    path: Path
    #: As it was written.
    text: str
    #: A JSON pointer to the string that holds it.
    pointer: str = ""

    @property
    def task_id(self) -> str | None:
        """The task whose output it takes."""
        return str(self.path[0]) if self.root == "outputs" else None


class Unresolved(RunyardError):
    """A reference has no value in this run."""


class Malformed(ValueError):
    """A ``${`` that is no reference."""

    def __init__(self, message: str, hint: str = _FORMS) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


#: How many characters of JSON all references of one attempt may put in: what its supervisor gets in one message.
MAX_PUT_IN: Final = 8 * 1024 * 1024


class Meter:
    """Counts what references put in, before it is put together: a short document may ask for gigabytes."""

    __slots__ = ("spent",)

    def __init__(self) -> None:
        self.spent = 0

    def spend(self, size: int) -> None:
        self.spent += size
        if self.spent > MAX_PUT_IN:
            raise Unresolved(
                f"Its references put in more than {MAX_PUT_IN:,} characters; pass the place where the data is instead."
            )


@dataclass(frozen=True, slots=True)
class Scope:
    """What references can name in one attempt."""

    params: Mapping[str, Any] = field(default_factory=dict)
    #: The decoded output of every upstream that SUCCEEDED, by task id (None if it wrote none).  A task that is not in
    #: here did not succeed: whatever is asked of its output is null, so that a clean-up task can still run.
    outputs: Mapping[str, Any] = field(default_factory=dict)
    #: The fields of :data:`RUN_FIELDS`; a missing one is null.
    run: Mapping[str, Any] = field(default_factory=dict)
    try_number: int = 1
    meter: Meter = field(default_factory=Meter, compare=False)


@dataclass(frozen=True, slots=True)
class Found:
    """Every ``${`` of a value."""

    references: tuple[Reference, ...]
    problems: tuple[Problem, ...]


def find(value: Any) -> list[Reference]:
    """Return the references in *value*, with the JSON pointer where each stands; malformed ones are left out."""
    return list(scan(value).references)


def scan(value: Any, pointer: str = "") -> Found:
    """Return the references in *value*, and a problem for each ``${`` that is none; *value* stands at *pointer*."""
    references: list[Reference] = []
    problems: list[Problem] = []
    stack = [(value, pointer)]
    while stack:
        here, at = stack.pop()
        if isinstance(here, str):
            _scan_text(here, at, references, problems)
        elif isinstance(here, Mapping):
            problems.extend(_in_key(key, at) for key in here if "${" in key)
            stack.extend((child, f"{at}/{escape(key)}") for key, child in reversed(list(here.items())))
        elif isinstance(here, Sequence):
            stack.extend((child, f"{at}/{no}") for no, child in reversed(list(enumerate(here))))
    return Found(tuple(references), tuple(problems))


def resolve(value: Any, scope: Scope) -> Any:
    """Return *value* with every reference replaced, or raise :exc:`Unresolved`."""
    if isinstance(value, str):
        return _resolve_string(value, scope)
    if isinstance(value, Mapping):
        return {key: resolve(child, scope) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [resolve(child, scope) for child in value]
    return value


def resolve_text(value: str, scope: Scope) -> str:
    """Return *value* with every reference replaced, as text that may be an argument or an environment variable."""
    if "${" not in value:
        return value
    text = _text(_resolve_string(value, scope))
    if "\0" in text:
        raise Unresolved(f"{value!r} became a text with a NUL character, which no argument or variable can hold.")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise Unresolved(f"{value!r} became a text with a lone surrogate, which cannot be encoded.")
    return text


def escape(key: str) -> str:
    """Return *key* as one part of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def _resolve_string(text: str, scope: Scope) -> Any:
    if "${" not in text:
        return text
    try:
        parts = parse(text)
    except Malformed as wrong:  # no document with one is accepted; a run must not crash on it either
        raise Unresolved(wrong.message) from wrong
    if len(parts) == 1 and isinstance(parts[0], Reference):
        value = _look_up(parts[0], scope)
        scope.meter.spend(len(_text(value)))
        return value
    texts = []
    for part in parts:
        texts.append(part if isinstance(part, str) else _text(_look_up(part, scope)))
        scope.meter.spend(len(texts[-1]))
    return "".join(texts)


def parse(text: str, pointer: str = "") -> list[str | Reference]:
    """Split *text* into literal texts and references, or raise :exc:`Malformed` at the first that is none."""
    parts: list[str | Reference] = []
    literal, at = "", 0
    while mark := _MARK.search(text, at):
        literal += text[at : mark.start()]
        if mark.group() == "$${":
            literal, at = literal + "${", mark.end()
            continue
        reference, at = _parse_one(text, mark.start(), pointer)
        parts += [literal, reference] if literal else [reference]
        literal = ""
    literal += text[at:]
    return [*parts, literal] if literal or not parts else parts


def _parse_one(text: str, start: int, pointer: str) -> tuple[Reference, int]:
    at = start + 2
    root = _ROOT.match(text, at)
    at = root.end() if root else at
    path: list[str | int] = []
    while segment := _SEGMENT.match(text, at):
        names = (segment["name"], segment["double"], segment["single"])
        path.append(int(segment["index"]) if segment["index"] else next(name for name in names if name is not None))
        at = segment.end()
    if root is None or text[at : at + 1] != "}":
        raise _why_malformed(text, start)
    written = text[start : at + 1]
    _check_shape(root.group(), path, written)
    return Reference(root.group(), tuple(path), written, pointer), at + 1


def _check_shape(root: str, path: list[str | int], written: str) -> None:
    """Raise :exc:`Malformed` unless *root* exists and *path* can belong to it."""
    if root not in ROOTS:
        raise Malformed(f"{written} starts with {root!r}; there are only {', '.join(ROOTS)}.")
    if root == "try_number" and path:
        raise Malformed(f"{written}: try_number is a number, nothing is inside it.", "Write ${try_number}.")
    if root == "run" and (len(path) != 1 or path[0] not in RUN_FIELDS):
        raise Malformed(f"{written} names no field of the run.", f"The fields are {', '.join(RUN_FIELDS)}.")
    if root == "outputs" and (not path or not isinstance(path[0], str)):
        raise Malformed(f"{written} names no task.", "Write ${outputs.task} or ${outputs.task.field}.")
    if root == "params" and path and not isinstance(path[0], str):
        raise Malformed(f"{written} names no param.", "Write ${params.name}.")


def _why_malformed(text: str, start: int) -> Malformed:
    end = text.find("}", start)
    if end < 0:
        return Malformed(f"{_short(text[start:])} is never closed with a }}.")
    written = _short(text[start : end + 1])
    if re.search(r"\.[A-Za-z0-9_]*-", written):
        return Malformed(f"{written}: a name with a dash needs brackets.", 'Write ${outputs["my-task"].field}.')
    return Malformed(f"{written} is not a reference.")


def _scan_text(text: str, pointer: str, references: list[Reference], problems: list[Problem]) -> None:
    if "${" not in text:
        return
    try:
        references += [part for part in parse(text, pointer) if isinstance(part, Reference)]
    except Malformed as wrong:
        problems.append(Problem(pointer=pointer, code="bad_reference", message=wrong.message, hint=wrong.hint))


def _in_key(key: str, pointer: str) -> Problem:
    return Problem(
        pointer=f"{pointer}/{escape(key)}",
        code="reference_not_allowed",
        message=f"The key {_short(key)!r} holds a reference; keys are literal.",
        hint="Put the reference into a value.",
    )


def _look_up(reference: Reference, scope: Scope) -> Any:
    path = reference.path
    match reference.root:
        case "try_number":
            return scope.try_number
        case "run":
            return scope.run.get(str(path[0]))
        case "outputs":
            if path[0] not in scope.outputs:
                return None
            return _walk(scope.outputs[str(path[0])], path[1:], reference, f"outputs.{path[0]}")
        case _:
            return _walk(scope.params, path, reference, "params")


def _walk(value: Any, path: Path, reference: Reference, place: str) -> Any:
    for key in path:
        step = f"[{key}]" if isinstance(key, int) else f".{key}"
        inside = (
            key in value if isinstance(value, Mapping) else isinstance(value, list | tuple) and key in range(len(value))
        )
        if not inside:
            raise Unresolved(f"{reference.text} has no value: {place} is {_kind(value)} without {step}.")
        value = value[key]
        place += step
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _kind(value: Any) -> str:
    """Say what *value* is, by its shape and its names: a message never shows values of a run."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case Mapping():
            names = ", ".join(sorted(_short(str(name)) for name in value)[:10]) or "nothing"
            return f"an object (with {names})"
        case _:
            return f"a list of {len(value)}"


def _short(text: str) -> str:
    limit = 80
    return text if len(text) <= limit else text[: limit - 3] + "..."
