"""Durations as ISO 8601 writes them (``PT0.2S``, ``PT1H30M``, ``P1D``, ``P2W``), as :class:`~datetime.timedelta`.

Only what has a fixed length: years and months are refused, signs too.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

#: No duration in a document is longer.
LONGEST: Final = timedelta(days=366)

#: What the published JSON Schema says; :func:`parse` is stricter only about the bounds.
PATTERN: Final = (
    r"^P(?:[0-9]{1,9}W|(?=[0-9T])(?:[0-9]{1,9}D)?"
    r"(?:T(?=[0-9])(?:[0-9]{1,9}H)?(?:[0-9]{1,9}M)?(?:[0-9]{1,9}(?:\.[0-9]{1,6})?S)?)?)$"
)

_PARTS: Final = re.compile(
    r"P(?:(?P<weeks>\d{1,9})W|(?=[\dT])(?:(?P<days>\d{1,9})D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d{1,9})H)?(?:(?P<minutes>\d{1,9})M)?"
    r"(?:(?P<seconds>\d{1,9})(?:\.(?P<fraction>\d{1,6}))?S)?)?)",
    re.ASCII,
)
_EXAMPLES: Final = 'Write it as ISO 8601, such as "PT30S", "PT0.2S", "PT1H30M" or "P1D".'
_CALENDAR: Final = re.compile(r"P\d+[YM]|P\d+Y\d+M", re.ASCII)


class BadDuration(ValueError):
    """A text that is no duration we take; *hint* says what would be."""

    def __init__(self, message: str, hint: str = _EXAMPLES) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def parse(text: str) -> timedelta:
    """Return the duration that *text* writes, or raise :exc:`BadDuration`."""
    found = _PARTS.fullmatch(text)
    if found is None:
        raise _why_not(text)
    parts = {name: int(digits) for name, digits in found.groupdict().items() if digits and name != "fraction"}
    micros = int((found["fraction"] or "").ljust(6, "0"))
    length = timedelta(microseconds=micros, **parts) if sum(parts.values()) <= LONGEST.total_seconds() else None
    if length is None or length > LONGEST:
        raise BadDuration(f"{text!r} is longer than {format_duration(LONGEST)}.", "Choose a shorter time.")
    return length


def format_duration(length: timedelta) -> str:
    """Return *length* (not negative) in its shortest exact form; ``PT0S`` for none."""
    seconds, micros = length.seconds, length.microseconds
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    whole = f"{seconds}.{micros:06d}".rstrip("0") if micros else str(seconds)
    clock = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "") + (f"{whole}S" if whole != "0" else "")
    days = f"{length.days}D" if length.days else ""
    return f"P{days}T{clock}" if clock else f"P{days or 'T0S'}"


def _why_not(text: str) -> BadDuration:
    shown = repr(text if len(text) <= 60 else text[:57] + "...")  # noqa: PLR2004  # a message stays one line
    if text.startswith(("-", "+")):
        return BadDuration(f"{shown} has a sign; a duration here is a length.", "Leave the sign away.")
    if _CALENDAR.match(text):
        return BadDuration(f"{shown} counts months or years, which have no fixed length.", 'Count days: "P30D".')
    if text.startswith("P") and text.upper() == text and re.search(r"\d{10,}", text):
        return BadDuration(f"{shown} is longer than {format_duration(LONGEST)}.", "Choose a shorter time.")
    return BadDuration(f"{shown} is not a duration.")
