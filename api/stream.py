"""Long answers: event streams, followed logs, waits.

Each holds a slot (so many for a key, so many in all), ends when the service stops, when its key does, or after an hour,
and is dropped when its reader takes nothing.  A hint that something changed saves latency; without one a stream looks
again by itself, at first soon, then at longer intervals.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import structlog
from starlette.responses import StreamingResponse

from api.problems import TOO_MANY_STREAMS, Refused
from api.responses import dumps

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Iterator

    from starlette.types import Message, Receive, Send
    from starlette.types import Scope as Asgi

    from api.auth import Authenticator, Caller
    from api.settings import ApiSettings
    from dag.world import Clock
    from metastore.store import Subscription

log = structlog.get_logger(__name__)

#: How soon a stream looks again without a hint: at first, and at most.
SOON: Final = 0.5
LATE: Final = 8.0


class Streams:
    """All long answers of this process."""

    def __init__(self, settings: ApiSettings, clock: Clock, authenticator: Authenticator) -> None:
        self._settings = settings
        self._clock = clock
        self._authenticator = authenticator
        self._open: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """End every long answer soon; called before the server stops to take requests."""
        self._stopping.set()

    @contextmanager
    def slot(self, caller: Caller) -> Iterator[None]:
        """Hold one of the slots while something is open; refuse with 429 when there is none."""
        key = caller.key_id
        if self._open[key] >= self._settings.streams_per_key or self._open.total() >= self._settings.streams:
            raise Refused(
                TOO_MANY_STREAMS,
                f"There are {self._open[key]} open streams, followed logs and waits of this key.",
                headers={"Retry-After": "5"},
            )
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]

    def life(self, caller: Caller) -> Life:
        """Return the span of a new stream of *caller*."""
        return Life(self._settings, self._clock, self._authenticator, self._stopping, caller)


class Life:
    """How long one stream goes on, and when it says that it is alive."""

    def __init__(
        self,
        settings: ApiSettings,
        clock: Clock,
        authenticator: Authenticator,
        stopping: asyncio.Event,
        caller: Caller,
    ) -> None:
        self._clock = clock
        self._authenticator = authenticator
        self._stopping = stopping
        self._caller = caller
        self._heartbeat = settings.heartbeat.total_seconds()
        self._ends = clock.monotonic() + settings.stream_age.total_seconds()
        self._beats = clock.monotonic() + self._heartbeat
        self._patience = SOON

    def moved(self) -> None:
        """Say that something came: the next look is soon again."""
        self._patience = SOON

    async def pause(self, changes: Subscription | None, longest: float = LATE) -> bool:
        """Wait for a change, or for the time to look again.  True when a heartbeat is due."""
        now = self._clock.monotonic()
        await self._wait(changes, max(0.0, min(self._patience, longest, self._beats - now)))
        self._patience = min(self._patience * 2, LATE)
        return self.beat()

    def beat(self) -> bool:
        """Whether a heartbeat is due; the next one is, an interval later."""
        now = self._clock.monotonic()
        if now < self._beats:
            return False
        self._beats = now + self._heartbeat
        return True

    async def over(self, *, beat: bool) -> str | None:
        """Return why the stream ends now, if it does; the key is looked at with each *beat*."""
        if self._stopping.is_set():
            return "shutdown"
        if self._clock.monotonic() >= self._ends:
            return "age"
        if beat and not await self._authenticator.still_valid(self._caller):
            return "key"
        return None

    async def _wait(self, changes: Subscription | None, seconds: float) -> None:
        hints: list[Coroutine[Any, Any, bool]] = [self._stopping.wait()]
        if changes is not None:
            hints.append(changes.wait(None))
        waits = [asyncio.create_task(hint) for hint in hints]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


class LiveResponse(StreamingResponse):
    """A streamed answer that holds a slot and drops a reader who takes nothing."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        streams: Streams,
        caller: Caller,
        media_type: str,
        patience: float,
        headers: dict[str, str] | None = None,
    ) -> None:
        # Text streams are not buffered by proxies, nor kept.
        super().__init__(
            chunks,
            headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"} | (headers or {}),
            media_type=media_type,
        )
        self._chunks = chunks
        self._streams = streams
        self._caller = caller
        self._reader_patience = patience

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        async def impatient(message: Message) -> None:
            async with asyncio.timeout(self._reader_patience):
                await send(message)

        with self._streams.slot(self._caller):
            try:
                await super().__call__(scope, receive, impatient)
            except TimeoutError:
                log.info("slow reader dropped", key_id=self._caller.key_id)
            finally:
                # The generator holds a subscription or a file; it is closed now, not when it is collected.
                await self._chunks.aclose()


def sse(data: Any, *, event: str, identity: int | None = None) -> bytes:
    """Return one server-sent event; JSON has no raw line break, so data is one line."""
    head = "" if identity is None else f"id: {identity}\n"
    return f"{head}event: {event}\ndata: {dumps(data)}\n\n".encode()


#: A comment: keeps connections open, ignored by readers.
HEARTBEAT: Final = b": alive\n\n"
