"""What the kernel knows and Python does not say: sub-reapers, process trees, a clock that counts sleep."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_UCRED: Final = struct.Struct("3i")
_PROC: Final = Path("/proc")


def become_subreaper() -> None:
    """Make orphans among the descendants of this process its own children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def hide_memory() -> None:
    """Have no process of the same user, such as a task, look into this one: not its memory, not its environment."""
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends; more exactly, when the thread that forked it does."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    import ctypes  # noqa: PLC0415  only an agent needs it, and the service imports this module too

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def boottime() -> float:
    """Return seconds since boot, those in which the host slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def descendants(pid: int) -> list[int]:
    """Return the pids below *pid*, parents before their children."""
    found = _children(pid)
    for child in found:  # grows while it is walked
        found += _children(child)
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to what may be gone already."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_marked(marker: bytes) -> int:
    """Kill every process that was started with *marker* (``NAME=value``) in its environment; return how many."""
    killed: set[int] = set()
    for _ in range(200):
        left = [pid for pid in _all_pids() if pid != os.getpid() and _has_marker(pid, marker)]
        if not left:
            break
        for pid in left:
            kill(pid)
        killed.update(left)
        time.sleep(0.005)  # a process that was killed keeps its environment until the kernel has taken it down
    return len(killed)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_bytes().split())
    return found


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _has_marker(pid: int, marker: bytes) -> bool:
    try:
        return marker in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def peer_uid(end: socket.socket) -> int:
    """Return the user at the other end of a UNIX socket."""
    found = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(found)[1])
