"""Our message as Dramatiq carries it: how it is packed, and what a consumer makes of one that arrives.

A consumer hands to Dramatiq only what it has checked and built anew.  A foreign message would hurt there: one that is
no JSON stops the consumer for three seconds and stays, one with another queue's name ends the thread that runs it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from dramatiq import Message, MessageProxy

from executors.queues.message import NAME, NotOurs, body, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from executors.queues.message import Offer

#: Ours have 400 bytes.
_LARGEST: Final = 16 * 1024


def pack(queue_name: str, attempt_id: str, ticket: str, priority: int | None = None) -> bytes:
    """Return the message of an attempt; its id is the attempt's."""
    options: dict[str, Any] = {"redis_message_id": attempt_id}
    if priority is not None:
        options = {"broker_priority": priority}
    return Message(queue_name, NAME, (), body(attempt_id, ticket), options, message_id=attempt_id).encode()


def unpack(found: bytes) -> Offer:
    """Return what is offered; raise NotOurs for anything that no scheduler of ours has packed."""
    if len(found) > _LARGEST:
        raise NotOurs(f"a message of {len(found):,} bytes")
    try:
        fields = json.loads(found)
    except (ValueError, RecursionError):
        raise NotOurs("a message that is not JSON") from None
    if not isinstance(fields, dict) or fields.get("actor_name") != NAME:
        raise NotOurs(f"a message for another actor than {NAME}")
    return read(fields.get("kwargs"))


class Delivery(MessageProxy):
    """A message on its way through a worker; prints without its arguments, which are a secret."""

    def __init__(self, queue_name: str, offer: Offer, handle: Any, settle: Callable[[Delivery], None]) -> None:
        kwargs = {"attempt_id": offer.attempt_id, "ticket": offer.ticket}
        super().__init__(Message(queue_name, NAME, (), kwargs, {}, message_id=offer.attempt_id))
        #: What its consumer knows it by.
        self.handle = handle
        #: Whether it goes back to the broker: it was not started here.
        self.goes_back = False
        self._settle = settle
        self._settled = False

    def settle(self) -> None:
        """Acknowledge it, or put it back: by the consumer that has brought it, once."""
        if not self._settled:
            self._settled = True
            self._settle(self)

    def __str__(self) -> str:
        return f"{NAME}({self.message_id})"

    def __repr__(self) -> str:
        return f"<Delivery {self}>"

    __hash__ = None  # type: ignore[assignment]  # it compares by value, as the class it is of
