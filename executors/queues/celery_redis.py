"""Kombu's Redis with a consumer that survives what it cannot read, and what it cannot say.

What is no message of Celery's ends a worker there: the error comes out of the event loop.  And a message whose
acknowledgement was lost with the connection is counted as held for ever: once that is so for as many as a worker may
hold, it takes no more, however well the broker is.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import structlog
from kombu.transport import redis
from kombu.transport.virtual import Empty

log = structlog.get_logger(__name__)

#: What Redis was not told yet is dealt with.  Of the process, for a channel does not outlive its connection: whichever
#: comes after it says what the last one could not, else the message would lie there until its time is over.
_LATE: Final[deque[str]] = deque()
#: What was taken out of its queue by a connection that broke before it was known to be held.  Redis may hold it for
#: nobody: it goes back into the queue, else it would lie there until its time is over.
_ASTRAY: Final[deque[str]] = deque()


class QoS(redis.QoS):
    """What a consumer holds; it lets go even when nobody hears it."""

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)  # type: ignore[no-untyped-call]  # it has no types
        except Exception:
            _ASTRAY.append(delivery_tag)
            raise

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # it has no types
        except Exception as error:  # noqa: BLE001  # a channel that was closed meanwhile fails in more than one way
            self._let_go(delivery_tag, error)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001,FBT002  # as kombu calls it
        try:
            super().reject(delivery_tag, requeue=requeue)  # type: ignore[no-untyped-call]  # it has no types
        except Exception as error:  # noqa: BLE001  # as above
            self._let_go(delivery_tag, error)

    def restore_unacked(self, client: Any = None) -> None:
        """Put back what is held, when a connection is closed; where Redis is away that ends no worker."""
        try:
            super().restore_unacked(client)  # type: ignore[no-untyped-call]  # it has no types
        except Exception as error:  # noqa: BLE001  # without its server kombu fails in more than one way
            log.warning("messages could not be put back", messages=len(self._delivered), reason=type(error).__name__)
            self._delivered.clear()

    def _let_go(self, delivery_tag: str, error: Exception) -> None:
        log.warning("the broker was not told that a message is dealt with", reason=type(error).__name__)
        _LATE.append(delivery_tag)
        self._quick_ack(delivery_tag)

    def catch_up(self) -> None:
        """Say what could not be said before, if it can be said now."""
        while _LATE or _ASTRAY:
            queue, say = (_LATE, self._forget) if _LATE else (_ASTRAY, self.restore_by_tag)
            tag = queue.popleft()
            try:
                say(tag)
            except Exception:  # noqa: BLE001  # the same error ends the listening, which says so
                queue.append(tag)
                return

    def _forget(self, delivery_tag: str) -> None:
        self._remove_from_indices(delivery_tag).execute()  # type: ignore[no-untyped-call]  # it has no types


class Channel(redis.Channel):
    """A channel that throws away what is no message."""

    QoS = QoS

    def _brpop_start(self, timeout: float | None = None) -> None:
        self.qos.catch_up()
        super()._brpop_start(timeout)  # type: ignore[no-untyped-call]  # it has no types

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # it has no types
        except (Empty, *self.connection_errors):
            raise
        except Exception as error:  # noqa: BLE001  # whatever it stumbles over was made by somebody else
            # It is out of the list already; its text may be anything, and is not repeated.
            log.warning("a message was thrown away", reason=f"not what Celery sends ({type(error).__name__})")
            return True


class Transport(redis.Transport):
    """The transport that Celery is given for a Redis."""

    Channel = Channel
