"""The zygote: a small single-threaded process that forks every task of one agent, and reaps it.

It runs on the interpreter of the tasks (Python 3.8 or later), so it imports the standard library only, and no sibling.
The agent talks to it over a SEQPACKET socket, one JSON object a message::

    agent → zygote    {"do": "fork", "id", …}         with the pipe of the log, and more in a file where it is long
    agent → zygote    {"do": "signal", "id", "signal"}   to the whole tree of the task
    agent → zygote    {"do": "ping"}                     answered by {"pong"}, where it hears
    agent → zygote    {"do": "hold", "until"}            the agent's lease, by the clock that counts sleep; null: none
    zygote → agent    {"ready": pid}                  once
    zygote → agent    {"id", "status", "fenced"}      ended with this wait status, and its tree is dead
    zygote → agent    {"id", "refused"}               could not be forked

Every task leads a session of its own and is the sub-reaper of its descendants: what it leaves behind, daemons with
their own session included, becomes a child of the zygote in the moment the task ends.  So any child that the zygote did
not fork itself belongs to a task that is over, and is killed before the end is reported.

It does no I/O that can hang, and never waits for its agent.  So it kills by the agent's lease where the agent does not:
one that hangs in a disk has a timer that does not fire.

When the agent goes away the socket says so; the zygote then kills every task and ends.  It holds the agent's lock open
until then, so a free lock means that nothing of that agent is alive.  A task whose zygote dies gets SIGKILL from the
kernel.
"""

# ruff: noqa: PTH123, PTH208, SIM105
# pathlib and contextlib would be imported for nothing else, and every task is a fork of this memory.
from __future__ import annotations

import sys

if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # our own folder: ``-P`` needs 3.11; nothing of Runyard may stand before the user's modules

import array
import ctypes
import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import time
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # typing itself is not imported: it costs 2 ms and a third of a megabyte
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
#: The largest message that comes in one piece; a larger one comes in a file whose descriptor is sent along.
_MAX_MESSAGE = 128 * 1024
#: How long an end is held back while something of its tree will not die (uninterruptible sleep).
_SWEEP_SECONDS = 5.0
#: How often what is left is killed and looked for in one go; each round reaches one generation further down.
_SWEEP_ROUNDS = 100
#: How long after the end of the lease the agent is given to do it itself; others may start the tasks a second after it.
_LEASE_MARGIN = 0.3
#: A poll does not count the sleep of the host, so the lease is looked at again this often.
_LOOK_SECONDS = 1.0
_LAPSED = "the agent lost contact with the metastore for longer than its lease before the task was forked"
_CHUNK = 4096
#: The exit code of a child in which something of ours failed before the task.
_NOT_RUN = 125

_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


class _Zygote:
    def __init__(self, agent: socket.socket, become: Callable[[dict[str, Any], int, int], int]) -> None:
        self.agent = agent
        self.become = become
        self.pid = os.getpid()
        self.tasks: dict[int, str] = {}
        self.pids: dict[str, int] = {}
        #: When to kill in the agent's place, what would be killed, and what was.
        self.until: float | None = None
        self.mortal: set[str] = set()
        self.fenced: set[str] = set()
        #: Ended, not reported yet; since when the first of them waits for its tree.
        self.ended: list[dict[str, Any]] = []
        self.held_since = 0.0
        #: What the agent has had no room for.
        self.unsent: list[bytes] = []
        self.wake_r, self.wake_w = os.pipe()
        # This process has one thread, so all its children, and those it inherits, stand in one list.
        self.list = os.open(f"/proc/self/task/{self.pid}/children", os.O_RDONLY | os.O_CLOEXEC)

    def serve(self) -> None:
        """Fork and reap until the agent goes away."""
        for end in (self.wake_r, self.wake_w):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self.wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _noop)
        poll = select.poll()
        poll.register(self.agent, select.POLLIN)
        poll.register(self.wake_r, select.POLLIN)
        self.tell({"ready": self.pid})
        gc.disable()
        gc.freeze()
        while True:
            ready = [fd for fd, _ in poll.poll(self.patience())]
            if self.wake_r in ready:
                _drain(self.wake_r)
            if self.wake_r in ready or self.ended:
                self.reap()
            if self.unsent:
                self.flush()
            if self.agent.fileno() in ready:
                if not self.receive():
                    return
            elif self.mortal and self.is_over():  # after what the agent has said: a renewal may be among it
                self.lapse()

    def patience(self) -> float | None:
        """Return after how many milliseconds to look without being asked; None: not at all."""
        if self.ended or self.unsent:
            return 50
        if self.until is None or not self.mortal:
            return None
        return 1000 * min(max(self.until - _boottime(), 0), _LOOK_SECONDS)

    def is_over(self) -> bool:
        return self.until is not None and _boottime() >= self.until

    def lapse(self) -> None:
        """Do what the agent should have done: kill, but for what asked to go on."""
        for task in self.mortal:
            self.signal(task, signal.SIGKILL)
        self.fenced |= self.mortal
        self.mortal.clear()

    def tell(self, message: dict[str, Any]) -> None:
        self.unsent.append(json.dumps(message).encode())
        self.flush()

    def flush(self) -> None:
        """Send as much as goes: whoever waited for an agent that hangs would hang with it."""
        try:
            while self.unsent:
                self.agent.send(self.unsent[0], socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
                del self.unsent[0]
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOBUFS, errno.ENOMEM):  # memory is short: that is no end of the agent's
                self.unsent.clear()  # the agent is gone; the next receive says so

    def receive(self) -> bool:
        """Do what the agent asks; False when there is no agent any more."""
        try:
            data, ancillary, _, _ = self.agent.recvmsg(_MAX_MESSAGE, 64, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return False
        if not data:
            return False
        fds = array.array("i")
        for _, _, content in ancillary:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        try:
            _, *long = fds or [0]
            message = json.loads(_read_all(long[0]) if long else data)
            if message["do"] == "fork":
                self.fork(message, fds)
            elif message["do"] == "ping":
                self.tell({"pong": self.pid})
            elif message["do"] == "hold":
                self.until = None if message["until"] is None else message["until"] + _LEASE_MARGIN
            else:
                self.signal(message["id"], message["signal"])
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def fork(self, job: dict[str, Any], fds: array.array[int]) -> None:
        if self.is_over():
            self.tell({"id": job["id"], "refused": _LAPSED})
            return
        try:
            pid = os.fork()
        except OSError as error:
            self.tell({"id": job["id"], "refused": "fork: " + str(error.strerror)})
            return
        if pid == 0:
            code = _NOT_RUN
            try:
                code = self.become(job, fds[0], self.pid)
            except BaseException:  # noqa: BLE001  a forked child must never return into the zygote's loop
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(code)
        self.tasks[pid] = job["id"]
        self.pids[job["id"]] = pid
        if not job["lasts"]:
            self.mortal.add(job["id"])

    def signal(self, task: str, number: int) -> None:
        """Send a signal to a task and all its descendants; nothing happens where it has ended."""
        leader = self.pids.get(task)
        if leader is None:
            return
        for pid in [leader, *_descendants(leader)]:
            _kill(pid, number)
            if number != signal.SIGKILL:
                _kill(pid, signal.SIGCONT)  # what is stopped cannot hear

    def reap(self) -> None:
        """Collect what has ended, kill what it left behind, report it when nothing is left."""
        swept = False
        for _ in range(_SWEEP_ROUNDS):
            self.collect()
            left = [pid for pid in self.children() if pid not in self.tasks]
            swept = not left
            if swept:
                break
            for pid in left:
                for each in [pid, *_descendants(pid)]:
                    _kill(each, signal.SIGKILL)
        if self.ended and (swept or time.monotonic() - self.held_since > _SWEEP_SECONDS):
            for end in self.ended:
                self.tell(end)
            self.ended.clear()

    def collect(self) -> None:
        """Take the wait status of every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            task = self.tasks.pop(pid, None)
            if task is not None:
                del self.pids[task]
                if not self.ended:
                    self.held_since = time.monotonic()
                self.ended.append({"id": task, "status": status, "fenced": task in self.fenced})
                self.fenced.discard(task)
                self.mortal.discard(task)

    def children(self) -> list[int]:
        """Return every child, forked or inherited."""
        return _read_pids(self.list)

    def end(self) -> None:
        """Kill every task and its tree, because there is no agent for them any more."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for pid in list(self.tasks):
                for each in [pid, *_descendants(pid)]:
                    _kill(each, signal.SIGKILL)
            self.reap()
            if not self.tasks and not self.children():
                return
            time.sleep(0.002)


def _boottime() -> float:
    """Return what the agent counts its lease by: seconds since boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _noop(_number: int, _frame: object) -> None:
    """Be a handler: the kernel interrupts the poll, the wake-up descriptor says why."""


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb", 0) as file:
                found += _read_pids(file.fileno())
    except OSError:
        pass  # it is gone, and its children are somebody else's now
    return found


def _read_pids(fd: int) -> list[int]:
    """Return a list of children: a read gives whole pids, so less than was asked for, and never more than a page."""
    data = b""
    while more := os.pread(fd, _CHUNK, len(data)):
        data += more
    return list(map(int, data.split()))


def _descendants(pid: int) -> list[int]:
    found = _children(pid)
    for child in found:  # grows while it is walked
        found += _children(child)
    return found


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # dead already; or a program with another owner, which no_new_privs rules out for our own


def _drain(fd: int) -> None:
    try:
        while len(os.read(fd, _CHUNK)) == _CHUNK:
            pass
    except BlockingIOError:
        pass


def _read_all(fd: int) -> bytes:
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        return file.read()


def _load(folder: str, name: str) -> dict[str, Any]:
    """Return what our own file beside this one defines; an import would need its folder on sys.path."""
    path = f"{folder}/{name}.py"
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec")
    names: dict[str, Any] = {"__name__": "runyard_" + name, "__file__": path}
    exec(code, names)  # noqa: S102  it is ours
    return names


def main() -> None:
    """Serve the agent at the other end of the inherited socket."""
    agent_fd, lock_fd, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    for fd in (agent_fd, lock_fd):
        os.set_inheritable(fd, False)  # noqa: FBT003  positional only
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python changes these, and what is ignored stays so over an exec
    # Lists the folders of sys.path once, for all tasks; Python looks again where a folder has changed.
    PathFinder.find_spec("no module has this name")
    become, run = _load(folder, "forked")["become"], _load(folder, "runner")["run"]
    zygote = _Zygote(socket.socket(fileno=agent_fd), lambda job, log, own: become(job, log, own, run))
    zygote.serve()
    zygote.end()


if __name__ == "__main__":
    main()
