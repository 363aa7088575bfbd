"""The outside world of an executor under test: the real clock, which can be made to be wrong, and real chance."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path


class RealClock:
    """This host's time."""

    def __init__(self) -> None:
        #: How wrong the time of day is; durations are right, as on every host whose clock is merely set wrongly.
        self.skew = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.skew

    def monotonic(self) -> float:
        return time.monotonic()


class RealEntropy:
    """This host's chance."""

    def token(self, size: int) -> bytes:
        return os.urandom(size)

    def luck(self) -> float:
        return 0.5


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def marked(marker: str) -> list[int]:
    """Return the live processes that have *marker* (``NAME=value``) in their environment, as a task's all have."""
    wanted = marker.encode()
    return [pid for pid in pids() if wanted in environment(pid)]


def environment(pid: int) -> list[bytes]:
    """Return the environment that a process was started with; nothing of one that has ended or is not ours."""
    return _memory(pid, "environ").split(b"\0")


def command(pid: int) -> bytes:
    """Return what a process was started with, as ``ps`` shows it to everybody."""
    return _memory(pid, "cmdline")


def pids() -> list[int]:
    """Return every live process but this one."""
    names = (entry.name for entry in Path("/proc").iterdir())
    return [int(name) for name in names if name.isdecimal() and int(name) != os.getpid() and is_alive(int(name))]


def _memory(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
