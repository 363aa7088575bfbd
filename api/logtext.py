r"""Attempt logs as text: raw bytes from the agent's files become UTF-8 that nothing can hide in.

A byte that is no UTF-8 is shown as ``\\xNN``, NUL as ``\\x00``.  Files are opened beneath the log folder only and links
are not followed: where a log is follows from the attempt's own id, and nothing a task does can make it another file.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import re
from typing import TYPE_CHECKING, Final

import structlog

from worker import logs

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)

CHUNK: Final = 256 * 1024
_ATTEMPT_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_DECODER: Final = codecs.getincrementaldecoder("utf-8")


class LogFile:
    """The log of one attempt, read forward; a file that is not there yet is empty so far."""

    def __init__(self, log_dir: Path, attempt_id: str, *, offset: int = 0) -> None:
        if _ATTEMPT_ID.fullmatch(attempt_id) is None:
            msg = f"not an attempt id: {attempt_id!r}"
            raise ValueError(msg)
        self._log_dir = log_dir
        self._where = logs.path(log_dir, attempt_id).relative_to(log_dir)
        self._decoder = _DECODER(errors="backslashreplace")
        self._offset = offset
        self._fd = -1

    @property
    def found(self) -> bool:
        """Whether there was a file to read."""
        return self._fd >= 0

    @property
    def position(self) -> int:
        """How many bytes of the file were read, or left out at its beginning."""
        return self._offset

    async def is_there(self) -> bool:
        """Whether there is a file that can be read; it is not left open."""
        try:
            return await asyncio.to_thread(self._open)
        finally:
            self.close()

    async def read(self) -> bytes:
        """Return the next piece, as text; nothing when there is no more so far."""
        return await asyncio.to_thread(self._read)

    def rest(self) -> bytes:
        """Return what was held back because a character seemed to be cut; called once, at the end."""
        return _shown(self._decoder.decode(b"", final=True))

    async def from_the_end(self, lines: int) -> None:
        """Go to where the last *lines* lines begin, as far as the last piece of the file shows them."""
        self._offset = await asyncio.to_thread(self._tail, lines)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bytes:
        if not self._open():
            return b""
        while raw := os.pread(self._fd, CHUNK, self._offset):
            self._offset += len(raw)
            if text := self._decoder.decode(raw):
                return _shown(text)
        return b""

    def _tail(self, lines: int) -> int:
        if not self._open():
            return 0
        size = os.fstat(self._fd).st_size
        start = max(0, size - 4 * CHUNK)
        raw = os.pread(self._fd, size - start, start)
        end = len(raw) - raw.endswith(b"\n")
        for _ in range(lines):
            end = raw.rfind(b"\n", 0, end)
            if end < 0:
                return start
        return start + end + 1

    def _open(self) -> bool:
        if self._fd >= 0:
            return True
        folder = -1
        try:
            root = os.open(self._log_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                folder = os.open(
                    self._where.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root
                )
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                self._fd = os.open(self._where.name, flags, dir_fd=folder)
            finally:
                os.close(root)
                if folder >= 0:
                    os.close(folder)
        except FileNotFoundError:
            return False
        except OSError as error:  # a link, say: somebody else's doing, and nothing that the reader can mend
            log.warning("log not readable", file=str(self._where), error=error.strerror)
            return False
        return True


def _shown(text: str) -> bytes:
    return text.replace("\0", "\\x00").encode()
