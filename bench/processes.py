"""What processes cost, read from /proc: ours, and how busy everybody else kept the machine meanwhile."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
#: Fields of /proc/PID/stat after the name, and of the first line of /proc/stat.
_UTIME, _STIME, _CUTIME, _CSTIME = 11, 12, 13, 14
_IDLE, _IOWAIT, _STEAL, _GUEST = 3, 4, 7, 8
#: How many cores others may use in a quiet moment, and how long one is.
_QUIET = 0.1
_MOMENT = 1.0


def cpu_seconds(pid: int, *, children: bool = False) -> float:
    """Return the processor time of *pid*, with that of its reaped children where asked; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(") ")[2].split()
    ticks = int(fields[_UTIME]) + int(fields[_STIME])
    if children:
        ticks += int(fields[_CUTIME]) + int(fields[_CSTIME])
    return ticks / _TICK


def pss(pid: int) -> int:
    """Return the proportional set size of *pid* in bytes: what is shared is divided by those who share it."""
    # The service is not dumpable: only root may look.
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(pid)


@dataclass(frozen=True, slots=True)
class Shares:
    """Where the machine's processor time went, in cores."""

    #: Processes that are none of ours.
    others: float
    #: What the hypervisor gave to somebody else.
    stolen: float
    idle: float


class Neighbours:
    """Measures how busy others kept the machine between its start and :meth:`shares`."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._since = time.monotonic()
        self._machine = _machine()
        self._ours = self._own()

    def shares(self) -> Shares:
        seconds = time.monotonic() - self._since
        busy, stolen, idle = (now - then for now, then in zip(_machine(), self._machine, strict=True))
        ours = self._own() - self._ours
        return Shares(max(0.0, busy - ours) / seconds, stolen / seconds, idle / seconds)

    def _own(self) -> float:
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return own + sum(cpu_seconds(pid, children=True) for pid in self._pids)


def wait_quiet(seconds: float) -> None:
    """Return once others left the machine alone for a moment, or after *seconds*."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before, began = _machine()[0], time.monotonic()
        time.sleep(_MOMENT)
        # An idle service and this process are in it, and are next to nothing.
        if (_machine()[0] - before) / (time.monotonic() - began) < _QUIET:
            return


def _machine() -> tuple[float, float, float]:
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    idle = fields[_IDLE] + fields[_IOWAIT]
    busy = sum(fields[:_GUEST]) - idle - fields[_STEAL]
    return busy / _TICK, fields[_STEAL] / _TICK, idle / _TICK
