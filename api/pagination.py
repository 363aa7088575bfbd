"""Bounded pages and the cursors between them.

A cursor says where a page ended (a key, never an offset: pages stay cheap and do not shift).  It is signed with a key
that is derived from the caller's own secret over the listing and its filters, so a cursor that was made up, taken from
another listing or shown by another key is refused, on every replica and after a restart, and no server secret is
needed.
"""

import base64
import binascii
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from fastapi import Depends, Query, Request

from api.problems import BAD_CURSOR, Refused
from api.responses import answer
from api.routing import authenticate
from dag.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.responses import Response

    from api.auth import Caller

MOST: Final = 1000
_MAC: Final = 16
_POSITION: Final = frozenset({"limit", "cursor"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """What part of a listing is asked for."""

    limit: int
    #: Where the page before ended; None is the beginning.
    position: list[Any] | None
    _sign: "Callable[[bytes], bytes]"

    @property
    def fetch(self) -> int:
        """How many rows to read: one more than is shown says whether there is a next page."""
        return self.limit + 1

    def answer(
        self,
        records: "Sequence[T]",
        render: "Callable[[T], dict[str, Any]]",
        position: "Callable[[T], list[Any]]",
    ) -> "Response":
        """Return one page of *records*; *position* says where one of them stands."""
        shown = records[: self.limit]
        more = len(records) > self.limit
        return answer(
            {
                "items": [render(record) for record in shown],
                "next_cursor": self._cursor(position(shown[-1])) if more else None,
            }
        )

    def _cursor(self, position: list[Any]) -> str:
        payload = json.dumps(position, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._sign(payload) + payload).decode().rstrip("=")


async def _page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many items a page has at most.")] = 100,
    cursor: Annotated[
        str | None,
        Query(max_length=2048, description="`next_cursor` of the page before; leave out for the first page."),
    ] = None,
) -> Page:
    sign = _signer(request, await authenticate(request))
    return Page(limit, None if cursor is None else _position(cursor, sign), sign)


Paged = Annotated[Page, Depends(_page)]


def _signer(request: Request, caller: "Caller") -> "Callable[[bytes], bytes]":
    """Return what signs positions of this listing with these filters for this caller."""

    def sign(payload: bytes) -> bytes:
        filters = sorted(pair for pair in request.query_params.multi_items() if pair[0] not in _POSITION)
        listing = json.dumps([request.scope["route"].path, request.path_params, filters], sort_keys=True).encode()
        return hmac.digest(caller.derive(b"cursor"), listing + b"\0" + payload, "sha256")[:_MAC]

    return sign


def _position(cursor: str, sign: "Callable[[bytes], bytes]") -> list[Any]:
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raw = b""
    if not hmac.compare_digest(raw[:_MAC], sign(raw[_MAC:])):
        raise Refused(
            BAD_CURSOR,
            "The cursor was not given out for this listing, these filters and this key.",
            problems=[Problem(pointer="/query/cursor", code="bad_cursor", message="Not a cursor of this listing.")],
        )
    position: list[Any] = json.loads(raw[_MAC:])
    return position
