"""The removal of what attempts leave behind: in a thread, several at once, and a moment after their end.

What starts or ends in that moment goes first; a folder can hold any number of files.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.spool import Spool

#: How long the folder of an attempt that is done with stays.
_SECONDS: Final = 0.02


class Tidier:
    """Removes the files of attempts that are done with."""

    def __init__(self, spool: Spool, on_change: Callable[[], None]) -> None:
        self._spool = spool
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._waiting: list[str] = []
        #: Whether there is anything left to remove.
        self.busy = False

    def add(self, attempt_id: str) -> None:
        """Remove the files of an attempt soon."""
        self._waiting.append(attempt_id)
        if not self.busy:
            self.busy = True
            self._loop.call_later(_SECONDS, self._tidy)

    def _tidy(self) -> None:
        done, self._waiting = self._waiting, []
        self._loop.run_in_executor(None, self._forget, done).add_done_callback(self._tidied)

    def _forget(self, attempts: list[str]) -> None:
        for attempt_id in attempts:
            self._spool.forget(attempt_id)

    def _tidied(self, _done: asyncio.Future[None]) -> None:
        self.busy = bool(self._waiting)
        if self.busy:
            self._loop.call_later(_SECONDS, self._tidy)
        self._on_change()
