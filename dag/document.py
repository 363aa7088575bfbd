"""From bytes to a plain JSON object: nothing that a hostile body can do to a parser gets past here.

JSON and YAML give the same values; :mod:`dag.yaml_reader` says what is taken of YAML.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from dag import yaml_reader
from dag.errors import DocumentInvalid, Problem
from dag.findings import Findings
from dag.references import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_BYTES: Final = 1024 * 1024
#: Objects and lists inside each other.
MAX_DEPTH: Final = 64
#: Pointers are cut there when something stands below them.
_LONGEST_PLACE: Final = 1000

_INT64: Final = range(-(2**63), 2**63)
_DIGITS: Final = 19
_NUL: Final = "nul_character"
# Strings are skipped whole, an unclosed one up to the end: the scan stays linear whatever the text is.
_BRACKETS: Final = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Twice(dict[str, Any]):
    """An object some of whose keys came more than once."""

    keys_twice: tuple[str, ...] = ()


class TooLong(int):
    """A number with more digits than a 64-bit integer has; its value is lost."""


def read(raw: bytes, *, media: Literal["json", "yaml"]) -> dict[str, Any]:
    """Return the object that *raw* holds, or raise :exc:`~dag.errors.DocumentInvalid`."""
    if len(raw) > MAX_BYTES:
        _refuse("too_large", f"The document has {len(raw):,} bytes.", f"At most {MAX_BYTES:,} bytes are taken.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        _refuse("not_utf8", f"Byte {wrong.start} is not UTF-8.", "Send the document encoded as UTF-8.")
    if not text.strip():
        _refuse("empty_document", "There is no document.", f"Send a DAG document as {media.upper()}.")
    value = _read_json(text) if media == "json" else yaml_reader.read(text, max_depth=MAX_DEPTH)
    if not isinstance(value, dict):
        _refuse("not_an_object", "The document is not an object.", 'Begin with {"dag_id": …, "tasks": {…}}.')
    findings = Findings()
    sweep(value, findings)
    findings.raise_if_any(DocumentInvalid)
    return value


def content_hash(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of *document*: the order of keys and the white space do not matter."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def sweep(value: Any, findings: Findings) -> bool:
    """Tell *findings* of every value that cannot be stored or passed on; False: nothing else can work with it.

    A NUL is told like the rest, and does no harm to who looks further.
    """
    stack: list[Iterator[tuple[Any, str]]] = [iter([(value, "")])]
    while stack:
        if (child := next(stack[-1], None)) is None:
            stack.pop()
            continue
        here, at = child
        if isinstance(here, str):
            _sweep_text(here, at, findings)
        elif isinstance(here, dict | list | tuple):
            if len(stack) > MAX_DEPTH:
                findings.add(_shortened(at), "too_deep", *_TOO_DEEP)
                return False
            at = _shortened(at, _LONGEST_PLACE)  # each value inside repeats it
            if isinstance(here, dict):
                _sweep_keys(here, at, findings)
            stack.append(_children(here, at))
        else:
            _sweep_scalar(here, at, findings)
    return all(problem.code == _NUL for problem in findings.problems)


def _children(here: dict[Any, Any] | list[Any] | tuple[Any, ...], at: str) -> Iterator[tuple[Any, str]]:
    if isinstance(here, dict):
        for key, child in here.items():
            yield child, f"{at}/{escape(str(key))}"
    else:
        for no, child in enumerate(here):
            yield child, f"{at}/{no}"


_TOO_DEEP: Final = (
    f"Objects and lists are nested deeper than {MAX_DEPTH}.",
    "Flatten the value, or pass it as JSON text.",
)


def _sweep_text(text: str, at: str, findings: Findings) -> None:
    if "\0" in text:
        findings.add(
            at,
            _NUL,
            "The text holds a NUL character.",
            "Leave it out; no argument, variable or name can hold one.",
        )
    if not text.isascii() and _SURROGATE.search(text):
        findings.add(
            at,
            "lone_surrogate",
            "The text holds half of a surrogate pair, which cannot be encoded.",
            "Write the whole character.",
        )


def _sweep_keys(here: dict[Any, Any], at: str, findings: Findings) -> None:
    for key in getattr(here, "keys_twice", ()):
        findings.add(
            f"{at}/{escape(key)}",
            "duplicate_key",
            f"The key {key!a} is there more than once.",
            "Keep one of them.",
        )
    for key in here:
        if not isinstance(key, str):
            findings.add(f"{at}/{key}", "key_not_text", f"The key {key!r} is no text.", f'Quote it: "{key}".')
        else:
            _sweep_text(key, f"{at}/{escape(key)}", findings)


def _sweep_scalar(here: Any, at: str, findings: Findings) -> None:
    match here:
        case None | bool():
            pass
        case int():
            if isinstance(here, TooLong) or here not in _INT64:
                findings.add(at, "number_out_of_range", "The number does not fit into 64 bits.", "Pass it as a text.")
        case float():
            if not math.isfinite(here):
                findings.add(at, "number_not_finite", "NaN and Infinity are no JSON numbers.", "Use null or a text.")
        case _:
            findings.add(
                at,
                "not_json",
                f"A {type(here).__name__} is no JSON value.",
                "Use texts, numbers, booleans, null, lists and objects.",
            )


def _read_json(text: str) -> Any:
    depth = 0
    for token in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token.group(), 0)
        if depth > MAX_DEPTH:
            _refuse("too_deep", *_TOO_DEEP)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
    except json.JSONDecodeError as wrong:
        message = f"Line {wrong.lineno}, column {wrong.colno} is not JSON: {wrong.msg}."
        _refuse("not_json", message, "Check for a missing comma, quote or bracket there.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    twice = Twice(plain)
    twice.keys_twice = tuple(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
    return twice


def _integer(digits: str) -> int:
    # int() of a million digits is slow, and Python refuses it above its own limit with a ValueError.
    return int(digits) if len(digits.lstrip("-")) <= _DIGITS else TooLong()


def _constant(name: str) -> float:
    return float(name)


def _shortened(pointer: str, limit: int = 200) -> str:
    return pointer if len(pointer) <= limit else pointer[:limit] + "…"


def _refuse(code: str, message: str, hint: str) -> NoReturn:
    raise DocumentInvalid([Problem(pointer="", code=code, message=message, hint=hint)])
