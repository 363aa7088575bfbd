"""When an agent ends: in a while, for a reason, unless something changes until then."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Departure:
    """A time to end that is set anew where its reason changes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, leave: Callable[[], None]) -> None:
        self._loop = loop
        self._leave = leave
        self._reason = ""
        self._timer: asyncio.TimerHandle | None = None

    def set_for(self, reason: str, seconds: float) -> None:
        """End in *seconds*; where it is to end for *reason* already, that time stays."""
        if reason == self._reason:
            return
        self.put_off()
        self._reason = reason
        self._timer = self._loop.call_later(seconds, self._leave)

    def put_off(self) -> None:
        """There is no reason to end any more."""
        self._reason = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
