"""The feeder: what brings messages of a broker to the agent of one home, and waits for their end.

It is threads and a socket, so that a worker of any broker library can use it: each of its threads calls
:meth:`Feeder.run` with one message and may acknowledge it when the call returns.  Tasks are the agent's; it goes on
with them when the feeder dies, and the next feeder of the same home takes it over.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from executors import spawn
from worker import environment, linux, protocol
from worker.protocol import PROTOCOL
from worker.settings import HTTP_PORTS, AgentSettings

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dag.world import Entropy
    from worker.protocol import Hello, Message, Standing

log = structlog.get_logger(__name__)

_FIRST_PAUSE: Final = 0.004
_LONGEST_PAUSE: Final = 1.0
#: A spawned agent that has not taken the lock by then is not going to.
_BOOT_SECONDS: Final = 15.0
#: How long tasks of an agent that speaks another protocol get to end by themselves.
_REPLACE_GRACE: Final = 10.0
#: What an agent needs beyond the grace of a drain: SIGTERM, its grace, SIGKILL, the last answers.
_DRAIN_MARGIN: Final = 20.0
#: How long the feeder that was here before may take to let go of the home.
_HANDOVER_SECONDS: Final = 5.0


class Dropped(Exception):
    """The attempt was not started here; its message is somebody else's, and must not be acknowledged."""


class HomeTaken(Exception):
    """Another process feeds the agent of this home."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What the agent registers as, and where."""

    api_url: str
    #: An API key with the scope ``work``.
    api_key: str = field(repr=False)
    #: For people.
    name: str
    executor: str
    queues: tuple[str, ...]
    #: How many attempts may run at once: the threads that call :meth:`Feeder.run`.
    slots: int


@dataclass(slots=True, eq=False)
class _Run:
    """A message that waits for its end."""

    ticket: str = field(repr=False)
    over: threading.Event = field(default_factory=threading.Event)
    is_dropped: bool = False


class Feeder:
    """The connection to the agent of one home, kept up by a thread of its own.  Safe to use from several threads."""

    def __init__(
        self,
        home: Path,
        worker: Worker,
        *,
        code_dir: Path,
        task_python: str,
        entropy: Entropy,
        http_allow: Sequence[str] = (),
        http_ports: Sequence[int] = HTTP_PORTS,
        on_status: Callable[[Standing, str], None] | None = None,
    ) -> None:
        """Take the home, and start an agent where there is none; raise HomeTaken or OSError where that cannot be.

        *on_status* is called from the feeder's own thread, with the same as :attr:`status`, when it changes.
        """
        self._home = home
        self._worker = worker
        self._environ = environment.allowed(os.environ)
        self._settings = AgentSettings.make_remote(
            home=str(home.absolute()),
            code_dir=str(code_dir.absolute()),
            task_python=task_python,
            environ=self._environ,
            http_allow=http_allow,
            http_ports=http_ports,
        )
        self._on_status = on_status
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._runs: dict[str, _Run] = {}
        self._status: tuple[Standing, str] = ("registering", "the agent is being started")
        #: The connection, once the agent has said hello; what it had then and was not done with since.
        self._end: socket.socket | None = None
        self._hello: Hello | None = None
        self._held: set[str] = set()
        #: Whether launches go to the agent that is there.
        self._is_open = False
        self._grace: float | None = None
        #: The agent that was started here, whether none has said hello since, and for how long.
        self._child = 0
        self._is_new = False
        self._waited = 0.0
        self._stopping = threading.Event()
        self._drained = threading.Event()
        spawn.prepare(home, entropy)
        self._home_lock = _take(home)
        self._thread = threading.Thread(target=self._keep, name="runyard-feeder", daemon=True)
        self._thread.start()

    @property
    def status(self) -> tuple[Standing, str]:
        """How it stands with the API, and why where it is not well."""
        return self._status

    def wait_for_answer(self, within: float) -> tuple[Standing, str]:
        """Wait until the API has answered the registration, or *within* is over; return the status then."""
        with self._changed:
            self._changed.wait_for(lambda: self._status[0] in ("serving", "refused") or self._closed, within)
        return self._status

    def run(self, attempt_id: str, ticket: str) -> None:
        """Have an attempt run; return when its message can be acknowledged, whatever became of it.

        It may be called again for the same attempt at any time; it runs once.  Raise Dropped where it was not started
        here and is not going to be.
        """
        run = self._enter(attempt_id, ticket)
        run.over.wait()
        if run.ticket != ticket:
            # A message with another ticket, forged or not, has an answer of its own.
            self.run(attempt_id, ticket)
        elif run.is_dropped:
            raise Dropped(attempt_id)

    def _enter(self, attempt_id: str, ticket: str) -> _Run:
        with self._lock:
            if self._closed or self._grace is not None:
                raise Dropped(attempt_id)
            run = self._runs.get(attempt_id)
            if run is None:
                run = self._runs[attempt_id] = _Run(ticket)
                if self._is_open:
                    self._send({"type": "launch", "attempt_id": attempt_id, "ticket": ticket})
            return run

    def drain(self, grace: float) -> bool:
        """Take nothing more, and let the agent end: what runs gets *grace* seconds, then is stopped and runs again.

        Return when the agent has ended, or could not be waited for any longer: False.
        """
        with self._lock:
            self._grace = grace
            self._send({"type": "drain", "grace": grace})
        return self._drained.wait(grace + _DRAIN_MARGIN)

    def close(self) -> None:
        """Let go of the agent, which goes on by itself with what it has; waiting calls of ``run`` raise Dropped."""
        with self._changed:
            self._stopping.set()
            if self._end is not None:
                with suppress(OSError):
                    self._end.shutdown(2)
            self._drop_all()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(2 * _LONGEST_PAUSE)
        with self._lock:
            lock, self._home_lock = self._home_lock, -1
        if lock >= 0:
            os.close(lock)

    @property
    def _closed(self) -> bool:
        return self._stopping.is_set()

    # The feeder's own thread

    def _keep(self) -> None:
        while not self._closed and not self._drained.is_set():
            try:
                self._feed()
            except Exception:
                # Whoever waits in ``run`` waits for this thread: it goes on, whatever it was.
                log.exception("feeding failed", home=str(self._home))
                self._stopping.wait(_LONGEST_PAUSE)

    def _feed(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closed:
            end = self._connect()
            if end is None:
                if self._grace is not None and not self._child and not spawn.is_alive(self._home):
                    self._end_of_drain()
                    return
                self._stopping.wait(pause)
                self._waited += pause
                pause = min(pause * 1.3, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            try:
                why = self._listen(end)
            finally:
                with self._lock:
                    self._end = None
                    self._hello = None
                    self._is_open = False
                end.close()
            if not self._closed:
                self._say("registering", f"the connection to the agent was lost: {why}")

    def _connect(self) -> socket.socket | None:
        """One step: connect, or see that nobody is there and start an agent."""
        try:
            end = spawn.connect(self._home)
        except OSError as error:
            self._spawn_if_needed(error)
            return None
        end.setblocking(True)  # noqa: FBT003  the only parameter it has
        if linux.peer_uid(end) != os.getuid():
            end.close()
            self._say("unreachable", f"the socket in {self._home}/agent is another user's: remove it")
            return None
        return end

    def _spawn_if_needed(self, error: OSError) -> None:
        if self._child and spawn.has_ended(self._child):
            self._child = 0
            if self._is_new:
                self._say("unreachable", f"the agent ended while it started; see {self._home}/agent/agent.log")
        if self._grace is not None:
            return
        if spawn.is_alive(self._home):
            if self._waited > _BOOT_SECONDS:
                self._say(
                    "unreachable", f"an agent holds {self._home}/agent/lock but does not answer: {error.strerror}"
                )
            return
        if self._waited < (_BOOT_SECONDS if self._child else _LONGEST_PAUSE) and self._is_new:
            return  # it is on its way, or ended at once: no faster than one a second
        self._waited = 0.0
        self._is_new = True
        try:
            self._child = spawn.spawn(self._settings, self._environ)
        except OSError as failure:
            self._say("unreachable", f"no agent can be started: {failure}")

    def _listen(self, end: socket.socket) -> str:
        """Hear the agent until the connection is over; return why."""
        buffer = bytearray()
        try:
            while data := end.recv(65536):
                buffer += data
                for message in protocol.decode(buffer):
                    self._receive(end, message)
        except (OSError, protocol.FrameInvalid) as error:
            return str(error)
        return "the agent closed it"

    def _receive(self, end: socket.socket, message: Message) -> None:
        match message["type"]:
            case "hello":
                self._greet(end, message)
            case "done":
                self._resolve(message["attempt_id"], is_dropped=False)
            case "dropped":
                self._resolve(message["attempt_id"], is_dropped=True)
            case "status":
                self._say(message["state"], message["detail"])
            case other:
                log.error("a message that no remote agent sends", type=other)

    def _greet(self, end: socket.socket, hello: Hello) -> None:
        """Tell the agent everything that it has to know, in order."""
        with self._lock:
            if self._closed:
                return
            self._waited = 0.0
            self._is_new = False
            self._hello, self._end = hello, end
            self._held = {held["attempt_id"] for held in hello["attempts"]}
            self._send({"type": "welcome", "protocol": PROTOCOL, "version": self._settings.version})
            if hello["protocol"] != PROTOCOL:
                self._replace(hello, _REPLACE_GRACE)
                return
            if hello["version"] != self._settings.version and not self._held:
                self._replace(hello, 0)
                return
            self._is_open = True
            worker = self._worker
            self._send(
                {
                    "type": "configure",
                    "api_url": worker.api_url,
                    "api_key": worker.api_key,
                    "name": worker.name,
                    "executor": worker.executor,
                    "queues": list(worker.queues),
                    "slots": worker.slots,
                }
            )
            if self._grace is not None:
                self._send({"type": "drain", "grace": self._grace})
            for attempt_id, run in self._runs.items():
                self._send({"type": "launch", "attempt_id": attempt_id, "ticket": run.ticket})
        log.info("agent connected", pid=hello["pid"], boot_id=hello["boot_id"], attempts=len(hello["attempts"]))

    def _resolve(self, attempt_id: str, *, is_dropped: bool) -> None:
        with self._lock:
            self._held.discard(attempt_id)
            run = self._runs.pop(attempt_id, None)
            if run is not None:
                run.is_dropped = is_dropped
                run.over.set()
            self._replace_if_idle()

    def _replace_if_idle(self) -> None:
        """Have an agent of another release or with other settings end once it has nothing; it is used until then."""
        hello = self._hello
        if hello is not None and hello["version"] != self._settings.version and not self._held and not self._runs:
            self._replace(hello, 0)

    def _replace(self, hello: Hello, grace: float) -> None:
        """Have the agent end; what is to be launched waits for the next one."""
        log.warning("the agent is replaced", agent=hello["version"], ours=self._settings.version)
        self._is_open = False
        self._send({"type": "drain", "grace": grace})

    def _end_of_drain(self) -> None:
        """There is no agent any more, and none will be started."""
        with self._lock:
            self._drop_all()
        self._drained.set()

    def _drop_all(self) -> None:
        for run in self._runs.values():
            run.is_dropped = True
            run.over.set()
        self._runs.clear()

    def _send(self, message: Message) -> None:
        """Send, if there is a connection; what was not sent is sent to the next agent that says hello."""
        if self._end is not None:
            with suppress(OSError):  # the thread that listens hears of it
                self._end.sendall(protocol.encode([message]))

    def _say(self, state: Standing, detail: str) -> None:
        with self._changed:
            if self._status == (state, detail):
                return
            self._status = (state, detail)
            self._changed.notify_all()
        log.info("worker", state=state, detail=detail)
        try:
            if self._on_status is not None:
                self._on_status(state, detail)
        except Exception:
            log.exception("what wanted to know the status failed")  # and must not end the feeding


def _take(home: Path) -> int:
    """Return a lock that this process has on being the feeder of *home*; two would take the agent from each other.

    A record lock and not flock(): a fork of this process must not hold it on.
    """
    file = os.open(home / "agent" / "feeder", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    waiting = threading.Event()
    for _ in range(int(_HANDOVER_SECONDS / 0.05)):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            waiting.wait(0.05)
        else:
            return file
    os.close(file)
    raise HomeTaken(
        f"Another worker process feeds the agent of {home}: give each worker a home of its own (RUNYARD_HOME), "
        "or let one process have more threads."
    )
