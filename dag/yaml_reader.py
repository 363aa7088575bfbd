"""YAML as a way to write JSON: values are built from the parser's events, without a loader.

No recursion, no objects.  The scalars are those of YAML 1.2's core schema: ``yes``, ``on``, ``1:30`` and ``2024-01-01``
are texts, ``0o17`` is fifteen.  Refused: aliases (and with them bombs), tags, a second document, keys that are no text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml

from dag.errors import DocumentInvalid, Problem
from dag.references import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

# libyaml where PyYAML was built with it: the same events, thirty times as fast.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_DIGITS: Final = 19

# A key without "? " ends within so many characters, as written (YAML 1.2.2, 7.4.2): beyond them the parser sees
# no key at all, and complains of what follows it.
_KEY_LENGTH: Final = 1024
_LONG_KEY: Final = f"Check the quotes there; YAML wants '? ' before a key longer than {_KEY_LENGTH:,} characters."


def read(text: str, *, max_depth: int) -> Any:
    """Return the one document in *text*, or raise :exc:`~dag.errors.DocumentInvalid`."""
    try:
        return _Builder(max_depth).build(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        where = f"Line {mark.line + 1}, column {mark.column + 1}" if mark else "It"
        _refuse(
            "",
            "not_yaml",
            f"{where} is not YAML: {wrong.problem or wrong.context}.",
            _LONG_KEY if mark and mark.column >= _KEY_LENGTH else "Check the indentation and the quotes there.",
        )
    except yaml.YAMLError as wrong:
        _refuse(
            "",
            "not_yaml",
            f"It is not YAML: {str(wrong).splitlines()[0]}.",
            "Control characters cannot stand in YAML; write them escaped in quotes.",
        )


class _Open:
    """A mapping or a list that is being read."""

    def __init__(self, value: dict[str, Any] | list[Any], pointer: str) -> None:
        self.value = value
        self.pointer = pointer
        self.key: str | None = None

    def place(self) -> str:
        """Return the pointer of what comes next."""
        if isinstance(self.value, list):
            return f"{self.pointer}/{len(self.value)}"
        return self.pointer if self.key is None else f"{self.pointer}/{escape(self.key)}"


class _Builder:
    def __init__(self, max_depth: int) -> None:
        self.max_depth = max_depth
        self.open: list[_Open] = []
        self.result: Any = None

    def build(self, events: Iterator[Any]) -> Any:
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    _refuse(
                        "",
                        "several_documents",
                        f"A second document begins in line {_line(event)}.",
                        "Send one document; leave the --- out.",
                    )
            elif isinstance(event, yaml.AliasEvent):
                hint = "Write the value out, or use `defaults`."
                _refuse(
                    self._place(),
                    "yaml_alias",
                    f"Line {_line(event)} uses the alias *{event.anchor}; aliases are not taken.",
                    hint,
                )
            elif isinstance(event, yaml.NodeEvent):
                self._node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.open.pop()
        return self.result

    def _node(self, event: Any) -> None:
        if event.tag is not None:
            _refuse(
                self._place(),
                "yaml_tag",
                f"Line {_line(event)} has the tag {event.tag!a}; tags are not taken.",
                "Quote what shall be a text.",
            )
        here = self.open[-1] if self.open else None
        if here is not None and isinstance(here.value, dict) and here.key is None:
            here.key = self._key(event, here)
            return
        place = self._place()
        if isinstance(event, yaml.ScalarEvent):
            self._put(_scalar(event.value) if event.implicit[0] else event.value)
            return
        if len(self.open) >= self.max_depth:
            _refuse(
                "",
                "too_deep",
                f"Line {_line(event)} is nested deeper than {self.max_depth}.",
                "Flatten the value, or pass it as JSON text.",
            )
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._put(value)
        self.open.append(_Open(value, place))

    def _key(self, event: Any, here: _Open) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            _refuse(
                here.pointer, "key_not_text", f"Line {_line(event)} has a list or an object as a key.", "Use a text."
            )
        key: str = event.value
        if event.implicit[0] and not isinstance(_scalar(key), str):
            _refuse(
                here.pointer, "key_not_text", f"Line {_line(event)}: the key {key!r} is no text.", f'Quote it: "{key}".'
            )
        if key in here.value:
            pointer = f"{here.pointer}/{escape(key)}"
            _refuse(
                pointer,
                "duplicate_key",
                f"Line {_line(event)}: the key {key!a} is there a second time.",
                "Keep one of them.",
            )
        return key

    def _put(self, value: Any) -> None:
        if not self.open:
            self.result = value
            return
        here = self.open[-1]
        if isinstance(here.value, list):
            here.value.append(value)
        elif here.key is not None:
            here.value[here.key] = value
            here.key = None

    def _place(self) -> str:
        return self.open[-1].place() if self.open else ""


def _scalar(text: str) -> Any:
    """Return the value of a plain scalar."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        # Longer than any 64-bit number: kept out of range for the sweep, without paying for a million digits.
        return int(text, base) if len(text.lstrip("+-")) <= _DIGITS + 2 else 2**64
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1).lower())
    return text


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _refuse(pointer: str, code: str, message: str, hint: str) -> NoReturn:
    raise DocumentInvalid([Problem(pointer=pointer, code=code, message=message, hint=hint)])
