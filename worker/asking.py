"""Questions of an agent: asked until they are answered."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.attempt import Attempt
    from worker.protocol import Message

#: How long an unanswered question waits before it is asked again.
_ASK_AGAIN: Final = 1.0


class Asker:
    """Asks for each attempt that waits for an answer: may it start, is its end noted."""

    def __init__(self, attempts: Mapping[str, Attempt], boot_id: str) -> None:
        self._attempts = attempts
        self._boot_id = boot_id
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        #: Whether there is anybody to ask.
        self.is_open = False
        #: Whether an answer may bring a next task.
        self.wants_more = True
        #: Whether a question that was sent may be lost; where it cannot, it is asked once.
        self.repeats = True
        #: Where messages go.
        self.send: Callable[[Message], None] = _nowhere

    def open(self) -> None:
        """Ask everything, of somebody who was asked nothing yet."""
        self.is_open = True
        for attempt in self._attempts.values():
            attempt.asked_at = 0.0
        self._ask_open()

    def close(self) -> None:
        """Nobody is there; the next one is asked."""
        self.is_open = False
        self.send = _nowhere

    def ask(self, attempt: Attempt) -> None:
        """Ask about *attempt* now, and again while there is no answer."""
        self.later(attempt)
        if attempt.finish is not None:
            attempt.finish["more"] = self.wants_more and attempt.finish["boot_id"] == self._boot_id
            self._tell(attempt.finish)
        else:
            self._tell({"type": "start", "attempt_id": attempt.attempt_id, "boot_id": self._boot_id})

    def later(self, attempt: Attempt) -> None:
        """Ask about *attempt* in a while; where questions are asked once, whoever hears the answers asks again."""
        attempt.asked_at = time.monotonic()
        if self._timer is None and self.repeats:
            self._timer = self._loop.call_later(_ASK_AGAIN, self._ask_open)

    def _tell(self, message: Message) -> None:
        if self.is_open:
            self.send(message)

    def _ask_open(self) -> None:
        self._timer = None
        if not self.is_open:
            return  # who comes next is asked
        now = time.monotonic()
        waiting = [attempt for attempt in self._attempts.values() if attempt.phase != "running"]
        for attempt in waiting:
            if now - attempt.asked_at >= _ASK_AGAIN * 0.9:
                self.ask(attempt)
        if waiting and self._timer is None and self.repeats:
            self._timer = self._loop.call_later(_ASK_AGAIN, self._ask_open)


def _nowhere(_message: Message) -> None:
    """Nobody is connected; it is asked again."""
