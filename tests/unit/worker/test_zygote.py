"""The zygote by itself: it kills by the lease that it was told of, and sees all children however many there are."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from array import array
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import worker
from executors.conformance.world import is_alive
from worker import linux
from worker.children import Zygote

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(worker.__file__).parent
#: More than a page of ``/proc/…/children`` holds.
MANY = 900
CROWD = f"""
import os, runpy, signal
names = runpy.run_path({str(FOLDER / "zygote.py")!r})
for _ in range({MANY}):
    if os.fork() == 0:
        signal.pause()
print(len(names["_Zygote"](None, None).children()), len(names["_children"](os.getpid())), flush=True)
os.killpg(0, signal.SIGKILL)
"""


def a_job(attempt_id: str, place: Path, *argv: str, lasts: bool = False) -> dict[str, Any]:
    nothing = {"refused": "", "stdin": None, "interpreter": None, "python": None, "base": ""}
    files = {name: str(place / f"{attempt_id}.{name}") for name in ("output", "error")}
    env = {"PATH": os.environ["PATH"]}
    return {"id": attempt_id, "argv": list(argv), "lasts": lasts, "env": env, "cwd": str(place), **nothing, **files}


class Agent:
    """The other end: it says what it is told to, and hears when it is asked to."""

    def __init__(self, place: Path) -> None:
        self.place = place
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end = ours
        self.log = os.open(os.devnull, os.O_WRONLY)
        lock = os.open(os.devnull, os.O_RDWR)
        argv = [sys.executable, str(FOLDER / "zygote.py"), str(theirs.fileno()), str(lock), str(FOLDER)]
        self.process = subprocess.Popen(argv, pass_fds=(theirs.fileno(), lock))
        theirs.close()
        os.close(lock)
        self.end.settimeout(20)
        assert self.hear() == {"ready": self.process.pid}

    def say(self, **message: Any) -> None:
        self.end.send(json.dumps(message).encode())

    def hold(self, seconds: float | None) -> None:
        """Have a lease for *seconds* from now."""
        self.say(do="hold", until=None if seconds is None else linux.boottime() + seconds)

    def fork(self, attempt_id: str, *argv: str, lasts: bool = False) -> None:
        data = json.dumps({"do": "fork", **a_job(attempt_id, self.place, *argv, lasts=lasts)}).encode()
        self.end.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [self.log]))])

    def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.end.recv(65536))
        return message

    def runs(self) -> set[int]:
        """Return what is alive below the zygote, once it has done what it was told."""
        self.say(do="ping")
        assert self.hear() == {"pong": self.process.pid}
        return {pid for pid in linux.descendants(self.process.pid) if is_alive(pid)}

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.end.close()
        self.process.wait(20)
        os.close(self.log)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    agent.close()


def test_an_agent_that_says_nothing_more_has_its_tasks_killed_when_its_lease_is_over(agent: Agent) -> None:
    agent.hold(1.5)
    agent.fork("tree", "sh", "-c", "setsid sleep 100 & exec sleep 100")
    agent.fork("lasting", "sleep", "100", lasts=True)
    before = agent.runs()
    over = time.monotonic() + 1.5
    assert agent.hear() == {"id": "tree", "status": signal.SIGKILL, "fenced": True}
    assert 0 < time.monotonic() - over < 1, "soon after, and never before the agent's own fence"
    (lasting,) = agent.runs() & before
    agent.fork("late", "true")
    assert agent.hear()["refused"].startswith("the agent lost contact")
    agent.hold(60)
    agent.fork("later", "true")
    assert agent.hear() == {"id": "later", "status": 0, "fenced": False}
    os.kill(lasting, signal.SIGKILL)
    assert agent.hear() == {"id": "lasting", "status": signal.SIGKILL, "fenced": False}


def test_without_a_lease_nothing_is_killed(agent: Agent) -> None:
    agent.hold(0.2)
    agent.hold(None)
    agent.fork("a", "sh", "-c", "sleep 1")
    assert agent.hear() == {"id": "a", "status": 0, "fenced": False}


def test_renewals_that_waited_while_the_zygote_stood_still_count(agent: Agent) -> None:
    """It was not the agent that hung: its tasks had their lease all the time."""
    agent.hold(0.5)
    agent.fork("a", "sleep", "100")
    before = agent.runs()
    agent.process.send_signal(signal.SIGSTOP)
    for _ in range(10):
        time.sleep(0.1)
        agent.hold(0.5)
    agent.hold(60)
    agent.process.send_signal(signal.SIGCONT)
    assert agent.runs() == before


def test_an_agent_that_hears_nothing_holds_no_kill_up(agent: Agent) -> None:
    """Every end that it does not take stays in the socket, which is full at some time."""
    agent.hold(5)
    agent.fork("long", "sleep", "100")
    (long,) = agent.runs()
    for number in range(400):
        agent.fork(str(number), "true")
    until = time.monotonic() + 10
    while is_alive(long):
        assert time.monotonic() < until
        time.sleep(0.05)
    ends = [agent.hear() for _ in range(401)]
    assert [end["id"] for end in ends if end.get("fenced")] == ["long"]


SHORT = f"""
import errno, runpy
names = runpy.run_path({str(FOLDER / "zygote.py")!r})
class Agent:
    def __init__(self, *errors):
        self.errors, self.heard = list(errors), 0
    def send(self, data, flags):
        if self.errors:
            raise OSError(self.errors.pop(), "")
        self.heard += 1
for errors, heard in (((errno.ENOBUFS, errno.ENOMEM), 1), ((errno.EPIPE,), 0)):
    agent = Agent(*errors)
    zygote = names["_Zygote"](agent, None)
    zygote.tell({{"id": "a", "status": 9}})
    for _ in range(2):
        assert zygote.patience() == 50 or not zygote.unsent
        zygote.flush()
    assert agent.heard == heard, (errors, agent.heard)
"""


def test_what_cannot_be_told_for_want_of_memory_is_told_later() -> None:
    """An agent that lives would wait for that end for ever."""
    subprocess.run([sys.executable, "-c", SHORT], check=True, timeout=20)


class _Ends:
    def __init__(self) -> None:
        self.refusals: asyncio.Queue[str] = asyncio.Queue()

    def ended(self, attempt_id: str, status: int, *, is_fenced: bool = False) -> None:
        raise AssertionError(attempt_id, status, is_fenced)

    def refused(self, attempt_id: str, why: str) -> None:
        self.refusals.put_nowait(f"{attempt_id}: {why}")

    def zygote_died(self, why: str) -> None:
        raise AssertionError(why)


async def test_a_zygote_that_starts_is_told_of_the_lease_first(tmp_path: Path) -> None:
    """As one does that replaces another."""
    ends = _Ends()
    lock = os.open(os.devnull, os.O_RDWR)
    zygote = Zygote(sys.executable, {"PATH": os.environ["PATH"]}, lock, ends)
    zygote.hold(linux.boottime() - 1)
    try:
        zygote.fork(a_job("a", tmp_path, "sleep", "100"), os.open(os.devnull, os.O_WRONLY))
        assert (await asyncio.wait_for(ends.refusals.get(), 20)).startswith("a: the agent lost contact")
    finally:
        zygote.close()
        os.close(lock)


def test_children_are_seen_however_many_there_are() -> None:
    """The kernel gives a page at a time, of whole pids: a read that brings less than was asked for is not the last."""
    done = subprocess.Popen([sys.executable, "-I", "-S", "-c", CROWD], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert done.stdout is not None
        assert done.stdout.readline().split() == [str(MANY).encode()] * 2
    finally:
        with suppress(ProcessLookupError):
            os.killpg(done.pid, signal.SIGKILL)
        done.communicate()
