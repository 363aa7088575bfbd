"""The agent's side of the zygote: ask for forks and signals, hear of ends, clean up when it dies."""

from __future__ import annotations

import array
import asyncio
import json
import os
import signal
import socket
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from worker import linux
from worker.say import say

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER: Final = Path(__file__).parent
#: A larger message goes into a file of its own; a SEQPACKET message must fit into the socket's buffer.
_MAX_INLINE: Final = 64 * 1024
#: How long a zygote that was asked to kill may keep silent, twice in a row: this process may have stood still, too.
_SILENCE: Final = 3.0


class Ends(Protocol):
    """Who hears of ends."""

    def ended(self, attempt_id: str, status: int, *, is_fenced: bool = False) -> None:
        """A task ended with this wait status, and nothing of its tree is alive.

        With *is_fenced* the zygote killed it, since its lease was over.
        """
        ...

    def refused(self, attempt_id: str, why: str) -> None:
        """A task could not be forked."""
        ...

    def zygote_died(self, why: str) -> None:
        """Every task died with the zygote; its orphans too."""
        ...


class Zygote:
    """One zygote at a time; a new one is started when it is needed after the old one died."""

    def __init__(self, python: str, environ: Mapping[str, str], lock_fd: int, ends: Ends) -> None:
        self._python = python
        self._environ = environ
        self._lock_fd = lock_fd
        self._ends = ends
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._pid = 0
        self._ready = False
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        self._burying: asyncio.Task[None] | None = None
        #: Until when the zygote has to show that it hears; how often it has not.
        self._doubt: asyncio.TimerHandle | None = None
        self._silences = 0
        self._until: float | None = None

    def start(self) -> None:
        """Start the process, from the main thread; raise OSError where the interpreter cannot be executed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inherited = (theirs.fileno(), self._lock_fd)
        try:
            for fd in inherited:
                os.set_inheritable(fd, True)  # noqa: FBT003  positional only
            self._pid = os.posix_spawnp(
                self._python,
                [self._python, str(_FOLDER / "zygote.py"), *map(str, inherited), str(_FOLDER)],
                dict(self._environ),
                setsigmask=[],
                setsigdef=[n for n in signal.valid_signals() if n not in (signal.SIGKILL, signal.SIGSTOP)],
            )
        except OSError:
            ours.close()
            raise
        finally:
            os.set_inheritable(self._lock_fd, False)  # noqa: FBT003  positional only
            theirs.close()
        ours.setblocking(False)  # noqa: FBT003  the only parameter it has
        self._socket = ours
        self._ready = False
        self._loop.add_reader(ours, self._receive)
        if self._until is not None:
            self._hold()

    def fork(self, job: Mapping[str, Any], log_fd: int) -> None:
        """Ask for a task; takes over *log_fd*."""
        data = json.dumps({"do": "fork", **job}).encode()
        fds = [log_fd]
        if len(data) > _MAX_INLINE:
            file = os.memfd_create("job")
            with open(os.dup(file), "wb") as opened:  # noqa: PTH123  a descriptor has no path
                opened.write(data)
            data, fds = b"{}", [log_fd, file]
        if self._burying is not None:
            # Its cleaning would kill a new child as well; what waits is sent when the next zygote is up.
            self._waiting.append((data, fds))
            return
        if self._socket is None:
            try:
                self.start()
            except OSError as error:
                _close(fds)
                self._ends.refused(job["id"], self._cannot_start(error.strerror or str(error)))
                return
        self._send(data, fds)

    def signal(self, attempt_id: str, number: int) -> None:
        """Ask for a signal to the whole tree of a task."""
        if self._socket is not None:
            self._send(json.dumps({"do": "signal", "id": attempt_id, "signal": number}).encode(), [])
            if number == signal.SIGKILL and self._doubt is None:
                self._ping()

    def hold(self, until: float | None) -> None:
        """Have all tasks but those that go on killed soon after *until*, should this process not do it.

        By :func:`worker.linux.boottime`; None: no lease can be lost.
        """
        if until != self._until:
            self._until = until
            if self._socket is not None:
                self._hold()

    def _hold(self) -> None:
        self._send(json.dumps({"do": "hold", "until": self._until}).encode(), [])

    def _ping(self) -> None:
        """See that the zygote hears: one that is stopped, or hangs, kills nobody."""
        self._send(b'{"do": "ping"}', [])
        self._doubt = self._loop.call_later(_SILENCE, self._is_silent)

    def _is_silent(self) -> None:
        self._silences += 1
        if self._silences == 1:
            self._ping()
        else:
            say(f"the zygote does not hear, and is killed with all tasks: pid {self._pid}")
            self._trust()
            linux.kill(self._pid)

    def _trust(self) -> None:
        self._silences = 0
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None

    def close(self) -> None:
        """Let the zygote end, and all tasks with it."""
        self._trust()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)

    def _send(self, data: bytes, fds: list[int]) -> None:
        self._waiting.append((data, fds))
        if len(self._waiting) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._waiting and self._socket is not None:
            data, fds = self._waiting[0]
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                self._socket.sendmsg([data], ancillary)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush)
                return
            except OSError:
                return  # it died; the reader hears of it, and then nothing waits any more
            _close(fds)
            self._waiting.popleft()
        if self._socket is not None:
            self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        for _ in range(64):
            if self._socket is None:
                return
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._died()
                return
            message = json.loads(data)
            if "status" in message:
                self._ends.ended(message["id"], message["status"], is_fenced=message["fenced"])
            elif "refused" in message:
                self._ends.refused(message["id"], message["refused"])
            elif "pong" in message:
                self._trust()
            else:
                self._ready = True

    def _died(self) -> None:
        assert self._socket is not None  # noqa: S101  only a live socket is read from
        self._trust()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._socket = None
        for _, fds in self._waiting:
            _close(fds)
        self._waiting.clear()
        self._burying = self._loop.create_task(self._bury())

    async def _bury(self) -> None:
        """Kill and reap whatever the zygote left to us, then say that it is over."""
        until = time.monotonic() + 10
        why = "the zygote died"
        while time.monotonic() < until:
            for pid in linux.descendants(os.getpid()):
                linux.kill(pid)
            try:
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:  # noqa: ASYNC222  it does not wait
                    if ended[0] == self._pid and os.WIFEXITED(ended[1]):
                        why = f"the zygote ended with exit code {os.WEXITSTATUS(ended[1])}"
                    elif ended[0] == self._pid:
                        why = f"the zygote was killed by signal {os.WTERMSIG(ended[1])}"
            except ChildProcessError:
                break
            await asyncio.sleep(0.005)
        self._burying = None
        waiting, self._waiting = self._waiting, deque()
        self._ends.zygote_died(why if self._ready else self._cannot_start(why))
        for _, fds in waiting:  # asked for while it was buried: those were reported as lost with the others
            _close(fds)

    def _cannot_start(self, why: str) -> str:
        return f"the interpreter of tasks, RUNYARD_TASK_PYTHON={self._python}, cannot be started: {why}"


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
