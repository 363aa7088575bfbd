"""What runs on a host, found by its home: agents, zygotes, tasks; how it stands still, and what is left of it at rest.

It looks from outside, at ``/proc`` and at files; nothing of the service's own code helps it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

#: The environment of everything below an agent names it.
_MARKER: Final = "RUNYARD_AGENT_ID"
#: Of a spool: what stays there, and what is kept for attempts to come.
_KEPT: Final = ("outcomes", "spare")
#: Answers to the last ends, the end of what a kill has hit, and the removal of its files.
_TIDY_WITHIN: Final = 20.0


def agents(home: Path) -> list[int]:
    """Return the agents of a home, and of the workers below it."""
    marks = (f'"{home}"'.encode(), f'"{home}/workers/'.encode())
    lines = ((pid, _read(pid, "cmdline")) for pid in _pids())
    return [pid for pid, line in lines if b"worker/__main__.py" in line and any(mark in line for mark in marks)]


def zygotes(home: Path) -> list[int]:
    """Return the zygotes that the agents of a home have; a task that is not more than a fork yet looks like one."""
    return [pid for agent in agents(home) for pid in children(agent) if b"worker/zygote.py" in _read(pid, "cmdline")]


def uptime() -> float:
    """Return the seconds since boot: the clock that tasks (without starting a process) and clients both can read."""
    return float(Path("/proc/uptime").read_text().split()[0])


def children(pid: int) -> list[int]:
    """Return the direct children of *pid*; none of one that is gone."""
    found: set[int] = set()
    for place in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found |= {int(each) for each in place.read_text().split()}
    return sorted(found)


def below(pids: Iterable[int]) -> set[int]:
    """Return what descends from *pids*."""
    found: set[int] = set()
    for pid in pids:
        direct = children(pid)
        found |= {*direct, *below(direct)}
    return found


def everything(home: Path) -> set[int]:
    """Return all processes of a home but the service itself: agents, zygotes, tasks, and what these left behind."""
    own = agents(home)
    marks = {f"{_MARKER}={_agent_id(folder)}".encode() for folder in _folders(home)}
    marked = {pid for pid in _pids() if not marks.isdisjoint(_read(pid, "environ").split(b"\0"))}
    return {pid for pid in {*own, *below(own), *marked} if _state(pid) not in {"Z", "X", ""}}


def send(pids: Iterable[int], number: signal.Signals) -> int:
    """Send a signal to each that is still there; return how many those were."""
    reached = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            reached += 1
    return reached


def left_behind(homes: Iterable[Path], within: float = _TIDY_WITHIN) -> list[str]:
    """Return, in words, what installations that have nothing to do still have after some time; nothing is what is due.

    That is processes of tasks, agents beyond the first, files of attempts, ends that nobody has answered.
    """
    homes = list(homes)
    deadline = time.monotonic() + within
    while (found := [each for home in homes for each in _left(home)]) and time.monotonic() < deadline:
        time.sleep(0.3)
    return found


def _left(home: Path) -> list[str]:
    held = agents(home)
    found = [
        f"process {pid} of {home.name}: {_read(pid, 'cmdline').replace(bytes(1), b' ').decode(errors='replace')[:200]}"
        for pid in sorted(everything(home) - {*held, *zygotes(home)})
    ]
    for folder in _folders(home):
        beside = [pid for pid in held if f'"{folder.parent}"'.encode() in _read(pid, "cmdline")]
        found += [f"process {pid} of {home.name}: one agent too many" for pid in beside[1:]]
        found += [
            f"file {file.relative_to(home.parent)}"
            for file in sorted((folder / "attempts").glob("*"))
            if file.name.partition(".")[0] not in _KEPT
        ]
        found += [f"end of {attempt} in the spool of {home.name}" for attempt in _unanswered(folder)]
    return found


def _unanswered(folder: Path) -> list[str]:
    """Return the attempts that the file of outcomes knows to have begun or ended, and no answer for."""
    waiting: dict[str, None] = {}
    file = folder / "attempts" / "outcomes"
    for text in file.read_bytes().splitlines() if file.exists() else ():
        with suppress(ValueError):  # a kill may have cut a line off
            line = json.loads(text)
            if "finish" in line:
                waiting[line["finish"]["attempt_id"]] = None
            elif "begun" in line:
                waiting[line["begun"]] = None
            else:
                waiting.pop(line.get("answered", ""), None)
    return list(waiting)


class Pauses:
    """Parts that stand still (SIGSTOP) for *seconds* each; the end of one pause wakes nobody else."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = Lock()
        self._standing: dict[str, Thread] = {}
        self._give_up = Event()
        #: How many stood still to the end, and how many were killed before, by what was paused.
        self.lasted: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        #: What stood still, from when to when, in seconds since boot.
        self.stood: list[tuple[str, float, float]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_up.set()
        self.wait()

    def begin(self, part: str, what: str, pids: Callable[[], Iterable[int]]) -> bool:
        """Stop what *pids* finds, unless that part stands still already; return whether there was anything to stop.

        The first of *pids* is the one that tells whether the pause lasted.
        """
        with self._lock:
            if part in self._standing:
                return False
            stopped: list[int] = []
            # Again until there is no more: what does not stand yet may have started another one.
            while new := [pid for pid in pids() if pid not in stopped and send([pid], signal.SIGSTOP)]:
                stopped += new
            if not stopped:
                return False
            thread = Thread(target=self._stand, args=(part, what, stopped, uptime()), daemon=True)
            self._standing[part] = thread
        thread.start()
        return True

    def stands(self, part: str) -> bool:
        with self._lock:
            return part in self._standing

    def wait(self) -> None:
        """Return once everything goes on."""
        while True:
            with self._lock:
                standing = list(self._standing.values())
            if not standing:
                return
            for thread in standing:
                thread.join()

    def _stand(self, part: str, what: str, stopped: list[int], since: float) -> None:
        given_up = self._give_up.wait(self._seconds)
        # What does not stand any more, or is another process by now, was killed meanwhile.
        lasted = not given_up and any(_state(pid) == "T" for pid in stopped[:1])
        send(stopped, signal.SIGCONT)
        with self._lock:
            self.stood.append((what, since, uptime()))
            del self._standing[part]
            (self.lasted if lasted else self.cut)[what] += 1


def _folders(home: Path) -> list[Path]:
    return [folder for folder in (home / "agent", *home.glob("workers/*/agent")) if (folder / "id").exists()]


def _agent_id(folder: Path) -> str:
    return (folder / "id").read_text().strip()


def _pids() -> list[int]:
    return [int(place.name) for place in Path("/proc").glob("[0-9]*")]


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def _state(pid: int) -> str:
    fields = _read(pid, "stat").rpartition(b") ")[2].split()
    return fields[0].decode() if fields else ""
