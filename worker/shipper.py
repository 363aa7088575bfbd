"""The way of logs from the spool of a remote agent to the API, by offset, while they are written and after.

A log of a short task never comes here: its finish carries the last 64 KiB.  What the API has is what it says in its
answers; a file goes when that is all of it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from worker.http_door import Answer, Request
from worker.say import say

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from worker.attempt import Attempt
    from worker.calls import Calls

#: How often running attempts are looked at, and how old one is before its log is sent in pieces.
_TICK: Final = 0.5
_CHUNK: Final = 1024 * 1024
#: What a finish carries.
TAIL: Final = 64 * 1024
#: A running attempt with that much more to send is not waited for.
_MUCH: Final = 256 * 1024
#: How long a finish waits for a long log to get ahead of it.
_AHEAD: Final = 3.0
_NO_PROGRESS: Final = 2.0
#: How often an answer may show no progress before a log is given up: its file was taken away.
_MOST_STALLS: Final = 30
_GAP: Final = 409


@dataclass(slots=True, eq=False)
class _Log:
    attempt_id: str
    key: str
    file: str
    #: What grows while the attempt runs; None: it is over.
    attempt: Attempt | None
    size: int = 0
    #: How much of it the API has.
    acked: int = 0
    stalls: int = 0
    #: Called once, when the finish can go.
    on_near_end: Callable[[], None] | None = None
    #: Whether its end is noted: then it only waits for its log.
    is_noted: bool = False

    @property
    def left(self) -> int:
        if self.attempt is not None and self.attempt.log is not None:
            self.size = self.attempt.log.size
        return max(self.size - self.acked, 0)


class Shipper:
    """All logs that the API does not have whole."""

    def __init__(self, calls: Calls, on_whole: Callable[[str], None]) -> None:
        self._loop = calls.loop
        self._calls = calls
        self._on_whole = on_whole
        self._logs: dict[str, _Log] = {}
        self._ticker: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        """Whether logs of attempts are left whose ends are noted."""
        return any(log.is_noted for log in self._logs.values())

    def is_noted(self, attempt_id: str) -> bool:
        """Whether the end of an attempt is noted and only its log is on the way."""
        log = self._logs.get(attempt_id)
        return log is not None and log.is_noted

    def watch(self, running: Mapping[str, Attempt]) -> None:
        """Send what running attempts write, as long as there are any."""
        if self._ticker is None and any(attempt.phase == "running" for attempt in running.values()):
            self._ticker = self._loop.call_later(_TICK, self._tick, running)

    def _tick(self, running: Mapping[str, Attempt]) -> None:
        self._ticker = None
        before = time.time() - _TICK
        for attempt in running.values():
            if attempt.phase == "running" and attempt.log is not None and attempt.started_at < before:
                log = self._logs.get(attempt.attempt_id)
                if log is None and attempt.log.size:
                    log = self._log(attempt.attempt_id, attempt.key, str(attempt.log.path), attempt)
                if log is not None and log.left:
                    self._ship(log)
        self.watch(running)

    def ended(self, attempt_id: str, key: str, file: str, size: int, then: Callable[[], None]) -> None:
        """An attempt has ended; *then* is called when its finish can go: soon, with the log ahead of it or not."""
        log = self._logs.get(attempt_id) or self._log(attempt_id, key, file, None)
        log.attempt = None
        log.size = size
        if log.left <= TAIL and ("log", attempt_id) not in self._calls:
            then()
            return
        log.on_near_end = then
        self._loop.call_later(_AHEAD, self._near_end, log)
        self._ship(log)

    def inherited(self, attempt_id: str, key: str, file: str) -> None:
        """An earlier agent left an end and maybe a log; the answer to the finish will say how much the API has."""
        self._log(attempt_id, key, file, None).size = _size(file)

    def tail(self, attempt_id: str) -> tuple[int, int, Callable[[], bytes]]:
        """Return where what the API has ends, how many of the next 64 KiB there are, and what reads them."""
        log = self._logs.get(attempt_id)
        if log is None or not log.left:
            return 0, 0, bytes
        size = min(log.left, TAIL)
        return log.acked, size, partial(_read, log.file, log.acked, size)

    def noted(self, attempt_id: str, next_offset: int | None) -> None:
        """The end of an attempt is noted; the API has its log up to *next_offset*, where it said so: send the rest."""
        log = self._logs[attempt_id]
        log.is_noted = True
        if next_offset is not None:
            log.acked = next_offset
        self._go_on(log)

    def adopt(self, attempt_id: str, key: str, file: str) -> None:
        """Send the log that an agent left whose attempt died with it."""
        log = self._log(attempt_id, key, file, None)
        log.size = _size(file)
        self.noted(attempt_id, None)

    def _log(self, attempt_id: str, key: str, file: str, attempt: Attempt | None) -> _Log:
        log = self._logs[attempt_id] = _Log(attempt_id, key, file, attempt)
        return log

    def _near_end(self, log: _Log) -> None:
        if log.on_near_end is not None:
            then, log.on_near_end = log.on_near_end, None
            then()

    def _ship(self, log: _Log) -> None:
        self._calls.make(("log", log.attempt_id), partial(self._request, log), partial(self._answer, log))

    def _request(self, log: _Log) -> Request:
        offset, size = log.acked, min(log.left, _CHUNK)
        return Request(
            method="PUT",
            path=f"/attempts/{log.attempt_id}/logs?offset={offset}",
            secret=log.key,
            body=partial(_read, log.file, offset, size),
            content_type="application/octet-stream",
        )

    def _answer(self, log: _Log, answer: Answer) -> float | None:
        if self._logs.get(log.attempt_id) is not log:
            return None  # the finish brought the rest
        offset = answer.document.get("next_offset")
        if isinstance(offset, int) and offset >= 0 and (answer.is_ok or answer.status == _GAP):
            log.stalls = log.stalls + 1 if offset <= log.acked else 0
            log.acked = offset
            why = "its file is gone" if log.stalls > _MOST_STALLS else ""
        elif answer.is_ok:
            return _NO_PROGRESS
        else:
            why = answer.problem
        if why:
            say(f"the rest of the log of {log.attempt_id}, {log.left:,} bytes, is given up: {why}")
            log.size = log.acked
            if log.attempt is not None:
                log.acked = 1 << 62  # and of what it writes from now on as well
        return self._next(log)

    def _next(self, log: _Log) -> float | None:
        """Return when to send the next piece; None: not before somebody asks."""
        if log.stalls:
            return _NO_PROGRESS
        if log.attempt is not None:
            return 0 if log.left > _MUCH else None
        if log.on_near_end is not None and log.left > TAIL:
            return 0
        self._near_end(log)
        if not log.is_noted:
            return None
        if log.left:
            return 0
        self._loop.call_soon(self._go_on, log)
        return None

    def _go_on(self, log: _Log) -> None:
        if log.left:
            self._ship(log)
        elif self._logs.pop(log.attempt_id, None) is not None:
            self._on_whole(log.attempt_id)


def _read(file: str, offset: int, size: int) -> bytes:
    """Return a piece of a log; nothing where it is gone, or where its task has put something else."""
    try:
        # A pipe that nobody writes to would hold the thread, and with it everything that goes in the same request.
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)
    except OSError:
        return b""


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116  a path as the spool has it
    except OSError:
        return 0
