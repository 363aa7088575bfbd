"""Tickets: what a message through a broker carries instead of a right.

A ticket says that this installation has queued an attempt; it lets its holder ask for the start, and nothing else.  It
is a function of the attempt's id, so that an attempt that is launched again has the ticket it had.  It never expires by
itself: the compare-and-set on the attempt is the authority, and a ticket of an attempt that is over is refused there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

_VERSION: Final = "rt1."
_CONTEXT: Final = b"runyard ticket 1|"


def sign(key: bytes, attempt_id: str) -> str:
    """Return the ticket of an attempt."""
    mac = hmac.digest(key, _CONTEXT + attempt_id.encode(), hashlib.sha256)
    return _VERSION + base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def holds(key: bytes, attempt_id: str, ticket: str) -> bool:
    """Whether *ticket* is the one of *attempt_id*; takes the same time whatever it is."""
    return hmac.compare_digest(sign(key, attempt_id).encode(), ticket.encode("utf-8", "surrogatepass"))
