"""How the command line shows things: tables for people, JSON for programs, problems with their way out."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

#: A column: its title, and what stands in it for one item.
Column = tuple[str, "Callable[[Mapping[str, Any]], object]"]

STYLES: Final = {
    "running": "cyan",
    "queued": "blue",
    "scheduled": "blue",
    "up_for_retry": "yellow",
    "cancelling": "yellow",
    "success": "green",
    "failed": "red",
    "upstream_failed": "dark_orange",
    "cancelled": "magenta",
    "skipped": "bright_black",
    "pending": "bright_black",
}
#: Wide enough that nothing is cut where no terminal says how wide it is.
_UNBOUNDED: Final = 100_000
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: Colours may pass; whatever else moves cursors, sets titles or answers back may not.
_HARMLESS: Final = re.compile(r"(\x1b\[[0-9;]*m)|([\x00-\x08\x0b-\x1f\x7f-\x9f])")
_CUT: Final = re.compile(r"\x1b(\[[0-9;]{0,30})?\Z")
_MINUTE: Final = 60
_HOUR: Final = 3600


def console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr that cuts nothing when it is not a terminal."""
    found = Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=_UNBOUNDED, soft_wrap=True)


def as_json(value: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(items: Sequence[Mapping[str, Any]], columns: Sequence[Column], empty: str) -> None:
    """Print *items*, a line each; *empty* when there are none."""
    out = console()
    if not items:
        console(stderr=True).print(empty)
        return
    out.print(grid(items, columns), soft_wrap=False)


def grid(items: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> Table:
    """Return a table without lines around it."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title, _ in columns:
        made.add_column(title, no_wrap=True)
    for item in items:
        made.add_row(*(_cell(value(item)) for _, value in columns))
    return made


def say(text: str, style: str = "") -> None:
    """Print one line for people."""
    console().print(Text(plain(text), style=style))


def warn(text: str) -> None:
    """Print one line for people beside the result."""
    console(stderr=True).print(Text(plain(text), style="yellow"))


def problems(found: Iterable[Mapping[str, Any]], indent: str = "    ") -> None:
    """Print what is wrong: place, message, way out."""
    err = console(stderr=True)
    for one in found:
        err.print(Text(f"{indent}{plain(str(one.get('pointer') or '/'))}: {plain(str(one.get('message', '')))}"))
        if one.get("hint"):
            err.print(Text(f"{indent}    {plain(str(one['hint']))}", style="bright_black"))


def plain(text: str) -> str:
    """Return *text* without anything that a terminal would obey."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class Screen:
    """Lets a foreign text through to a terminal: its colours, and nothing else that a terminal would obey."""

    def __init__(self) -> None:
        self._kept = ""

    def clean(self, piece: str) -> str:
        """Return what of the text so far may be printed; a colour that is cut off waits for its rest."""
        text = self._kept + piece
        cut = _CUT.search(text)
        self._kept = text[cut.start() :] if cut else ""
        if cut:
            text = text[: cut.start()]
        return _HARMLESS.sub(lambda found: found[1] or ("\r" if found[2] == "\r" else f"\\x{ord(found[2]):02x}"), text)


def moment(text: str | None) -> str:
    """Return a time of the API as a local one."""
    if not text:
        return ""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def lasted(item: Mapping[str, Any]) -> str:
    """Return how long something took from its start to its end."""
    start, end = item.get("started_at"), item.get("ended_at")
    if not start or not end:
        return ""
    return duration((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def duration(seconds: float) -> str:
    """Return *seconds* as people say them."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:02.0f} s"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:02.0f} min"


def _cell(value: object) -> Text:
    if value is None or value == "":
        return Text("-", style="bright_black")
    text = plain(str(value)).replace("\n", " ")
    return Text(text, style=STYLES.get(text, ""))
