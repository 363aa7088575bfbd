"""The log of an attempt: one file of raw bytes, in the order the task wrote them, capped.

Whatever goes wrong with the file (a full disk, a folder that went away) never fails the task: the bytes are counted as
dropped, and the last line says so.  A disk that hangs is another matter: the agent hangs with it, and all that it would
have done waits, but for the end of its lease, which the zygote sees to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: The most bytes of a task that one log keeps; the line about what was dropped comes on top.
CAP: Final = 64 * 1024 * 1024


def path(log_dir: Path, attempt_id: str) -> Path:
    """Return where the log of an attempt is; the file appears with the first byte of output."""
    return log_dir / attempt_id[-2:] / f"{attempt_id}.log"


class Log:
    """The writing end."""

    __slots__ = ("_fd", "_why", "cap", "dropped", "path", "size")

    def __init__(self, file: Path, cap: int = CAP) -> None:
        self.path = file
        self._fd = -1
        self._why = ""
        self.cap = cap
        self.size = 0
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Append *data*, as far as it fits."""
        room = self.cap - self.size
        if len(data) > room:
            self.dropped += len(data) - max(room, 0)
            data = data[: max(room, 0)]
            self._why = f"a log holds at most {self.cap:,} bytes"
        if data:
            self._append(data)

    def close(self) -> None:
        """Say what was dropped, if anything, and close the file."""
        if self.dropped:
            dropped = self.dropped
            self._append(f"\n[runyard] {dropped:,} bytes of output were dropped: {self._why}\n".encode())
            self.dropped = dropped
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            if self._fd < 0:
                self._fd = _open(self.path)
            while view:
                written = os.write(self._fd, view)
                self.size += written
                view = view[written:]
        except OSError as error:
            self.dropped += len(view)
            self._why = f"the log cannot be written: {error.strerror}"


def _open(file: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(file, flags, 0o600)
    except FileNotFoundError:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(file, flags, 0o600)
