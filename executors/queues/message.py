"""The message that a broker carries: which attempt, and the ticket to start it.  Nothing else.

No address: a worker talks to the API that it was configured with, so that whoever can write to the broker can have it
ask about attempts that exist, with tickets that hold, and cannot send it anywhere (docs/decisions/0018).
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

#: Grows when the message changes its meaning.
VERSION: Final = 1
#: What Dramatiq calls an actor and Celery a task; its number is the message's.
NAME: Final = "runyard_run_v1"

_ATTEMPT: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Without a dot, so that it ends where the queue's own name begins.
PREFIX_PATTERN: Final = "[A-Za-z_][A-Za-z0-9_-]{0,49}"
#: What fits into a header; whether it holds is for the API to say.
_TICKET: Final = re.compile(r"[!-~]{1,512}")


class NotOurs(Exception):
    """What arrived is no message of this version; its text quotes nothing of it."""


class Hidden(str):
    """A secret in a library's hands: it prints the arguments of every call when it is asked to log much."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Offer(NamedTuple):
    """An attempt that can start now, and what lets a worker ask for it."""

    attempt_id: str
    ticket: Hidden


def body(attempt_id: str, ticket: str) -> dict[str, Any]:
    """Return the message of an attempt."""
    return {"v": VERSION, "attempt_id": attempt_id, "ticket": ticket}


def read(found: object) -> Offer:
    """Return what the message *found* says; raise NotOurs where it is none of this version."""
    match found:
        case {"v": version} if version != VERSION or isinstance(version, bool):
            raise NotOurs(f"a message of another version than {VERSION}: update this worker, or the scheduler")
        case {"v": _, "attempt_id": str(attempt_id), "ticket": str(ticket), **rest} if not rest:
            if not _ATTEMPT.fullmatch(attempt_id):
                raise NotOurs("an attempt id that is none")
            if not _TICKET.fullmatch(ticket):
                raise NotOurs("a ticket that is none")
            return Offer(attempt_id, Hidden(ticket))
        case _:
            raise NotOurs("not what a scheduler of Runyard sends")


def queue_name(prefix: str, queue: str) -> str:
    """Return what *queue* is called at the broker; *prefix* keeps installations that share one apart."""
    return f"{prefix}.{queue}"
