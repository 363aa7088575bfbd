"""Logs that arrive over HTTP: bytes are put where they belong in the file that the readers of logs know.

A piece comes with its offset, so that it may come twice, late, or from two senders at once: what is there already is
left as it is, and bytes are only ever added at the end.  All of this is beside the event loop: the folder may be on a
server that is away.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from api.problems import LOG_GAP, LOG_STORE_AWAY, LOG_TOO_LONG, Refused
from worker import logs

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)

#: The most bytes of one request.
MAX_PIECE: Final = 1024 * 1024
#: The longest a log may get: what is kept of a task's output, and a line about what was not.
LONGEST: Final = logs.CAP + 4096
#: So many writers at once; a folder that hangs holds them, and nothing else.
_WRITERS: Final = 4
#: How long a piece may take before its sender is told to come again, in seconds.
_PATIENCE: Final = 10.0
_RETRY_AFTER: Final = {"Retry-After": "5"}
_FLAGS: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Written:
    """How much of the log is there now, and why not all of it, where something stands in the way."""

    size: int
    refused: Refused | None = None


class LogWriter:
    """Adds to the logs in one folder."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._threads: ThreadPoolExecutor | None = None

    async def write(self, attempt_id: str, offset: int, data: bytes, *, patience: float = _PATIENCE) -> Written:
        """Put *data* at *offset* of the log of an attempt whose id was checked, within *patience* seconds."""
        if offset + len(data) > LONGEST:
            return Written(0, Refused(LOG_TOO_LONG, f"A log has at most {LONGEST:,} bytes."))
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_WRITERS, thread_name_prefix="log-writer")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience):
                return await loop.run_in_executor(self._threads, self._write, attempt_id, offset, data)
        except TimeoutError:
            return Written(0, _away(f"it took longer than {patience:.0f} seconds"))

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # On a thread.

    def _write(self, attempt_id: str, offset: int, data: bytes) -> Written:
        size = 0
        try:
            fd = self._open(attempt_id)
            try:
                size = os.fstat(fd).st_size
                if offset > size:
                    detail = f"The log has {size:,} bytes so far, and these begin at {offset:,}."
                    return Written(size, Refused(LOG_GAP, detail, next_offset=size))
                rest = memoryview(data)[size - offset :]
                while rest:
                    # Where it ended when we looked: of two senders at once the later writes the same over the same.
                    count = os.pwrite(fd, rest, size)
                    size += count
                    rest = rest[count:]
            finally:
                os.close(fd)
        except OSError as error:
            log.warning("log not written", folder=str(self._log_dir), attempt=attempt_id, error=error.strerror)
            return Written(size, _away(error.strerror or "it cannot be written"))
        return Written(size)

    def _open(self, attempt_id: str) -> int:
        """Open the file beneath the folder; links are not followed."""
        where = logs.path(self._log_dir, attempt_id).relative_to(self._log_dir)
        root = os.open(self._log_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                folder = os.open(where.parent, _FOLDER, dir_fd=root)
            except FileNotFoundError:
                _make(where.parent, root)
                folder = os.open(where.parent, _FOLDER, dir_fd=root)
            try:
                return os.open(where.name, _FLAGS | os.O_CREAT, 0o600, dir_fd=folder)
            finally:
                os.close(folder)
        finally:
            os.close(root)


def _make(folder: Path, root: int) -> None:
    try:
        os.mkdir(folder, 0o700, dir_fd=root)
    except FileExistsError:  # another writer was first
        return


def _away(why: str) -> Refused:
    return Refused(LOG_STORE_AWAY, f"The log store does not take it: {why}.", headers=_RETRY_AFTER)
