"""The one thread that talks to a broker, and what is known of how the broker is.

A broker may not answer for minutes, however short the timeouts are that its library was given: names that do not
resolve, a confirmation that does not come.  So the event loop waits for the thread no longer than a budget, and as long
as the broker is away it does not ask at all: the thread looks after it by itself, and says when it is back.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from executors.queues.medium import Away

if TYPE_CHECKING:
    from collections.abc import Callable

    from dag.world import Clock
    from executors.queues.medium import Medium

log = structlog.get_logger(__name__)

T = TypeVar("T")

#: How often a broker that works is looked at when nothing is published: RabbitMQ wants to hear of us, too.
_IDLE: Final = 5.0
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 5.0
#: How long a stop waits for the thread; then it is left alone, and ends with the process.
_FAREWELL: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Job:
    """Something to do, and who waits for it."""

    work: Callable[[], Any]
    deadline: float
    future: asyncio.Future[Any]


class Courier:
    """Does what blocks, one thing after the other."""

    def __init__(self, medium: Medium, *, name: str, clock: Clock, on_return: Callable[[], None]) -> None:
        """Start; *on_return* is called in the event loop when the broker can be used, again or at first."""
        self._medium = medium
        self._clock = clock
        self._on_return = on_return
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._pause = _FIRST_PAUSE
        self._stopping = False
        #: Why the broker cannot be used; None while it can.
        self._why: str | None = f"the broker {medium.address.shown} was not reached yet"
        #: Whether it was ever found out how it is.
        self._is_known = False
        self._ended = asyncio.Event()
        threading.Thread(target=self._run, name=f"runyard-{name}", daemon=True).start()

    @property
    def why_away(self) -> str | None:
        """Why the broker cannot be used; None while it can."""
        return self._why

    @property
    def is_worth_asking(self) -> bool:
        """Whether the broker answered the last time, or was not asked yet."""
        return self._why is None or not self._is_known

    async def ask(self, work: Callable[[], T], budget: float) -> T:
        """Have *work* done by the thread; raise Away when that is impossible, or is not done within *budget*."""
        if not self.is_worth_asking:
            raise Away(self._why or "")
        job = _Job(work, self._clock.monotonic() + budget, self._loop.create_future())
        self._inbox.put(job)
        try:
            async with asyncio.timeout(budget):
                result: T = await job.future
        except TimeoutError:
            self._note(f"it does not answer within {budget:g} s")
            raise Away(self._why or "") from None
        return result

    async def stop(self) -> None:
        """Let the thread end, unless it hangs."""
        self._stopping = True
        self._inbox.put(None)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), _FAREWELL)

    # The thread

    def _run(self) -> None:
        while not self._stopping:
            try:
                job = self._inbox.get(timeout=_IDLE if self._why is None else self._pause if self._is_known else 0)
            except queue.Empty:
                self._probe()
                continue
            if job is not None:
                self._do(job)
        self._medium.close()
        self._tell(self._ended.set)

    def _probe(self) -> None:
        try:
            self._medium.probe()
        except Exception as error:  # noqa: BLE001  # the thread has to go on whatever a library does
            self._note(self._explain(error))
        else:
            self._note(None)

    def _do(self, job: _Job) -> None:
        if job.future.done() or self._clock.monotonic() >= job.deadline:
            return  # nobody waits for it any more
        try:
            result = job.work()
        except Exception as error:  # noqa: BLE001  # as above
            self._note(self._explain(error))
            self._tell(_fail, job.future, Away(self._why or ""))
        else:
            self._note(None)
            self._tell(_resolve, job.future, result)

    def _explain(self, error: Exception) -> str:
        if not isinstance(error, Away):
            # A library's own mistake must not end the thread; with it the executor would be silent for ever.
            log.error("the broker's library failed", error=self._medium.address.scrub(repr(error)))
            return f"its library failed ({type(error).__name__})"
        return str(error)

    def _note(self, why: str | None) -> None:
        """Write down how the broker is, from the thread or, where that hangs, from the loop."""
        was_away, was_known = self._why is not None, self._is_known
        shown = self._medium.address.shown
        self._is_known = True
        if why is not None:
            self._why = f"the broker {shown} is away: {why}"
            if not was_away or not was_known:
                self._pause = _FIRST_PAUSE
                log.warning("the broker is away", broker=shown, reason=why)
            else:
                self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            return
        self._why = None
        if was_away:
            log.info("the broker is there", broker=shown)
            self._tell(self._on_return)

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            self._stopping = True  # the loop is closed: nobody is left


def _resolve(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
