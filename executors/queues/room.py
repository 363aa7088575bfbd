"""The free slots of one worker process, shared by the consumers of all its queues.

A broker library gives each queue as many messages as there are threads.  With several queues that is more than the
process can run: messages would wait here, invisible and out of reach, while another worker stands idle.  So whoever
fetches messages takes room for them first.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Room:
    """How many messages may be taken now; closed while the worker wants none."""

    def __init__(self, slots: int, *, is_open: bool = True) -> None:
        self._changed = threading.Condition()
        self._free = slots
        self._open = is_open
        self._listeners: list[Callable[[], None]] = []

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def free(self) -> int:
        """For how many messages there is room now."""
        return self._free if self._open else 0

    def take(self, most: int) -> int:
        """Reserve room for up to *most* messages; return for how many."""
        with self._changed:
            taken = min(most, self._free) if self._open else 0
            self._free -= taken
            return taken

    def give(self, count: int = 1) -> None:
        """Give room back: messages that did not come, or are dealt with."""
        if count:
            with self._changed:
                self._free += count
                self._changed.notify_all()
            self._tell()

    def wait(self, within: float) -> None:
        """Return once there is room, or *within* seconds have passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._open and self._free > 0, within)

    def open(self) -> None:
        self._set(is_open=True)

    def close(self) -> None:
        """Let nobody take a message until it is open again; what was taken stays."""
        self._set(is_open=False)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call *listener*, from any thread, when there may be room, or none any more."""
        with self._changed:
            self._listeners.append(listener)

    def forget(self, listener: Callable[[], None]) -> None:
        with self._changed:
            self._listeners = [one for one in self._listeners if one != listener]

    def _set(self, *, is_open: bool) -> None:
        with self._changed:
            self._open = is_open
            self._changed.notify_all()
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
