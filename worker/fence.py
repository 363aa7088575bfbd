"""Self-fencing: an agent whose database lease is not renewed in time must not go on running its tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from worker import linux

if TYPE_CHECKING:
    from collections.abc import Callable

#: The loop's clock stands still while the host sleeps; looking this often catches up with the one that counts.
_LOOK_SECONDS: Final = 1.0


class Fence:
    """A deadline by the clock that counts sleep; *fall* is called when it passes while something runs."""

    def __init__(self, is_needed: Callable[[], bool], fall: Callable[[], None]) -> None:
        self._is_needed = is_needed
        self._fall = fall
        self._loop = asyncio.get_running_loop()
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: How often it was down when it was renewed: what was allowed before may be somebody else's since.
        self.lapses = 0

    @property
    def deadline(self) -> float | None:
        """When the lease is over, by the clock that counts sleep; None: no lease can be lost."""
        return self._deadline

    @property
    def is_down(self) -> bool:
        """Whether the lease is over."""
        return self._deadline is not None and linux.boottime() >= self._deadline

    def renew(self, ttl: float | None, until: float | None = None) -> None:
        """Note a renewal that holds for *ttl* seconds from now, but not after *until*; None: no lease can be lost."""
        if self.is_down:
            self.lapses += 1
            # Whoever stood still beyond the deadline must not be spared by the renewal that it wakes up to.
            if self._is_needed():
                self._fall()
        deadline = None if ttl is None else linux.boottime() + ttl
        self._deadline = deadline if deadline is None or until is None else min(deadline, until)
        self.watch()

    def watch(self) -> None:
        """Look again when it is time; no timer runs while there is nothing to stop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deadline is None or not self._is_needed():
            return
        left = self._deadline - linux.boottime()
        if left <= 0:
            self._fall()
        else:
            self._timer = self._loop.call_later(min(left, _LOOK_SECONDS), self.watch)
