"""Calls of a remote agent that are repeated until they are answered, with a pause that grows and is never the same.

All of them may be repeated by the protocol's rules, whatever became of an earlier try.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.http_door import Answer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from worker.bundles import Line
    from worker.http_door import Outage, Request

#: The first pause is up to this, each next one up to twice the one before.
_FIRST: Final = 0.5
_LONGEST: Final = 30.0
#: How long those that wait are spread over when there is contact again.
_HURRY: Final = 0.5

#: What a call is about: a word, and the attempt.
Name = tuple[str, str]


@dataclass(slots=True, eq=False)
class _Call:
    #: Returns what to send; None: not now, :meth:`Calls.hurry` says when.
    build: Callable[[], Request | None]
    #: Takes an answer; returns None when it is settled, or in about how many seconds to ask again.
    settle: Callable[[Answer], float | None]
    tries: int = 0
    is_flying: bool = False
    #: Whether the API may have got it.
    is_sent: bool = False
    timer: asyncio.TimerHandle | None = None


class Calls:
    """All calls over one lane that have no answer yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lane: Line, on_outage: Callable[[Outage], None]) -> None:
        self.loop = loop
        self._lane = lane
        self._on_outage = on_outage
        self._open: dict[Name, _Call] = {}

    def __contains__(self, name: Name) -> bool:
        return name in self._open

    def make(self, name: Name, build: Callable[[], Request | None], settle: Callable[[Answer], float | None]) -> None:
        """Make a call, unless it is under way."""
        if name not in self._open:
            self._open[name] = _Call(build, settle)
            self._send(name)

    def withdraw(self, name: Name) -> bool:
        """Forget a call that the API cannot have got; False where it may have."""
        call = self._open.get(name)
        if call is None:
            return True
        if call.is_flying or call.is_sent:
            return False
        self._forget(name)
        return True

    def hurry(self) -> None:
        """There is contact again: make soon what waits."""
        for name, call in self._open.items():
            if not call.is_flying:
                call.tries = 0
                self._wait(name, call, random.uniform(0, _HURRY))  # noqa: S311  it spreads load

    def _send(self, name: Name) -> None:
        call = self._open[name]
        call.timer = None
        request = call.build()
        if request is None:
            return
        call.is_flying = True
        self._lane.send(request, lambda result: self._answered(name, call, result))

    def _answered(self, name: Name, call: _Call, result: Answer | Outage) -> None:
        call.is_flying = False
        if isinstance(result, Answer):
            call.is_sent = True
            call.tries = 0
            pause = call.settle(result)
            if pause is None:
                self._forget(name)
            else:
                self._wait(name, call, pause * random.uniform(0.8, 1.2))  # noqa: S311  it spreads load
            return
        call.is_sent = call.is_sent or result.is_sent
        self._on_outage(result)
        pause = random.uniform(0, min(_FIRST * 2**call.tries, _LONGEST))  # noqa: S311  it spreads load
        call.tries = min(call.tries + 1, 16)
        self._wait(name, call, result.after + pause)

    def _wait(self, name: Name, call: _Call, seconds: float) -> None:
        if call.timer is not None:
            call.timer.cancel()
        call.timer = self.loop.call_later(seconds, self._send, name)

    def _forget(self, name: Name) -> None:
        call = self._open.pop(name, None)
        if call is not None and call.timer is not None:
            call.timer.cancel()
