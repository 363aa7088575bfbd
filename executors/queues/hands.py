"""What every library's worker does with an offer that it was brought."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from executors.feed import Dropped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from executors.queues.room import Room

log = structlog.get_logger(__name__)

#: What was given back is not taken again in the same moment: whoever gave it back may still be at it.
_AFTER_GIVING_BACK: Final = 0.5


class Hands(Protocol):
    """What runs attempts in this process; made by whoever knows the settings."""

    @property
    def room(self) -> Room:
        """How much there is to do at once; known once it was taken up."""
        ...

    def take_up(self, queues: Sequence[str], slots: int) -> None:
        """Begin, in the process that goes on to run attempts; a second call does nothing."""
        ...

    def succeed(self, broker_id: str) -> list[str]:
        """Write down what this process is called at the broker; return what those were called who died here."""
        ...

    def run(self, attempt_id: str, ticket: str) -> None:
        """Run an attempt; raise Dropped where another worker has to."""
        ...

    def drain(self) -> None:
        """Take nothing more, and let what runs end, or stop it."""
        ...


class Once:
    """Runs offers, each in one thread: a message that comes twice needs no second one."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._lock = threading.Lock()
        self._at_work: set[tuple[str, str]] = set()
        #: How many messages there were.
        self.seen = 0

    @property
    def busy(self) -> int:
        """How many threads wait for an attempt."""
        return len(self._at_work)

    def run(self, attempt_id: str, ticket: str) -> bool:
        """Run an attempt; return whether its message is dealt with, and not somebody else's."""
        offer = (attempt_id, ticket)
        with self._lock:
            self.seen += 1
            if offer in self._at_work:
                log.info("a message came again", attempt=attempt_id)
                return True
            self._at_work.add(offer)
        try:
            self._hands.run(attempt_id, ticket)
        except Dropped:
            time.sleep(_AFTER_GIVING_BACK)
            return False
        except Exception:
            # The metastore knows that it is queued, and offers it again.
            log.exception("an attempt could not be handed to the agent", attempt=attempt_id)
        finally:
            with self._lock:
                self._at_work.discard(offer)
        return True
