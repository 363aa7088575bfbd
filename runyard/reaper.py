"""What the first process of a container owes to the others: it waits for those whose parent is gone.

The image has no init of its own.  One would keep the service's environment, with its passwords, where every process of
the same user can read it: tasks too.  The services hide theirs.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_EVERY: Final = 5.0


async def reap_strangers() -> None:
    """Reap, for ever, children that this process did not start; return at once where it is not the first one."""
    if os.getpid() != 1:
        return
    before: set[int] = set()
    while True:
        await asyncio.sleep(_EVERY)
        before = reap(before)


def start_reaping() -> None:
    """Do the same on a thread of its own."""
    if os.getpid() == 1:
        threading.Thread(target=_go_on, name="reaper", daemon=True).start()


def _go_on() -> None:
    before: set[int] = set()
    while True:
        time.sleep(_EVERY)
        before = reap(before)


def reap(before: set[int]) -> set[int]:
    """Reap the children that have ended and had already *before*; return those that have ended since.

    Whoever starts a process here waits for it at once when it ends: what is still there after a round is nobody's.
    """
    ended = {pid for pid in _children() if _has_ended(pid)}
    for pid in ended & before:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return ended - before


def _children() -> list[int]:
    found: list[int] = []
    for thread in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, thread.read_text().split())
    return found


def _has_ended(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "Z"
