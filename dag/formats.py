"""The formats of texts that a params schema may ask for; each is really checked, with the standard library.

A checker returns whether the text has the format, or raises ValueError.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from dag import durations

if TYPE_CHECKING:
    from collections.abc import Callable


def _is_datetime(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", text, re.ASCII):
        return False
    whole = re.sub(r"\.\d+", "", text.upper().replace("Z", "+00:00"))
    return datetime.fromisoformat(whole).tzinfo is not None


def _is_date(text: str) -> bool:
    return re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) is not None and bool(date.fromisoformat(text))


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
CHECKED: Final[dict[str, Callable[[str], Any]]] = {
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
EXAMPLES: Final = {
    "date": 'Such as "2026-01-31".',
    "date-time": 'Such as "2026-01-31T02:30:00Z"; the offset is needed.',
    "duration": 'Such as "PT30S" or "P1D".',
    "time": 'Such as "02:30:00Z"; the offset is needed.',
}
