"""Agents in the simulation: the real ones, on homes whose disks, locks and sockets are simulated."""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.channels import Listener, Socket
from tests.simulation.hosts import SimProcess, here
from worker.agent import Agent
from worker.fence import Fence
from worker.link import Link
from worker.remote import RemoteAgent
from worker.supervise import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.simulation.hosts import Host
    from worker.protocol import Finish
    from worker.settings import AgentSettings

#: From being spawned to looking for the lock.
_BOOT: Final = (0.02, 0.2)
#: After the death of an agent until the kernel has taken its tasks down and its lock is free.
_FUNERAL: Final = 0.01
#: The size of a disk that is full: nothing can be reserved on it.
_FULL: Final = "disk"


class Home:
    """A folder that lasts: an id, the lock that a living agent holds, and its spool."""

    def __init__(self, host: Host, path: str, agent_id: str) -> None:
        self.host = host
        self.path = path
        self.agent_id = agent_id
        #: Who holds the lock.
        self.holder: SimProcess | None = None
        self.listener: Listener | None = None
        #: Ends without an answer, and keys of attempts that were asked for.
        self.ends: dict[str, Finish] = {}
        self.begun: dict[str, str] = {}
        #: What tasks left as their output, by path.
        self.outputs: dict[str, str] = {}
        #: Everything that ever ran here, for the journal.
        self.boots = 0
        #: How often the lock was taken.
        self.taken = 0


class SimSpool:
    """The files of attempts on a simulated disk: the interface of :class:`worker.spool.Spool`."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.folder = f"{home.path}/agent/attempts"

    def left(self) -> list[Finish]:
        return list(self._home.ends.values())

    def orphans(self) -> dict[str, str]:
        return dict(self._home.begun)

    def probe(self, reserve: int) -> None:
        del reserve
        if self._home.host.site.weather.is_down(f"disk:{self._home.host.name}"):
            self._home.host.site.weather.count("disk.full")
            raise OSError(errno.ENOSPC, "No space left on device")

    def begin(self, attempt_id: str, key: str, reserve: int) -> None:
        self.probe(reserve)
        self._home.begun[attempt_id] = key

    def prepare(self, attempt_id: str) -> None:
        """A folder is made."""

    def work(self, attempt_id: str) -> str:
        return f"{self.folder}/{attempt_id}"

    def output(self, attempt_id: str) -> str:
        return f"{self.folder}/{attempt_id}.output"

    def log(self, attempt_id: str) -> str:
        return f"{self.folder}/{attempt_id}.log"

    def error_file(self, attempt_id: str) -> str:
        return f"{self.folder}/{attempt_id}.error"

    def error(self, _attempt_id: str) -> str:
        return ""

    def keep(self, finish: Finish) -> None:
        host = self._home.host
        host.site.ends.setdefault(finish["attempt_id"], []).append((host.name, host.site.loop.time()))
        if host.site.weather.is_down(f"broken disk:{host.name}"):
            host.site.weather.count("disk.broken")
            raise OSError(errno.EIO, "Input/output error")
        self._home.begun.pop(finish["attempt_id"], None)
        self._home.ends[finish["attempt_id"]] = dict(finish)  # type: ignore[assignment]  # a copy of the same shape

    def answered(self, attempt_id: str) -> None:
        self._home.ends.pop(attempt_id, None)
        self._home.begun.pop(attempt_id, None)

    def forget(self, attempt_id: str) -> None:
        self._home.outputs.pop(self.output(attempt_id), None)

    @staticmethod
    def output_at(path: str) -> str | None:
        return home_of(path.partition("/agent/")[0]).outputs.get(path)


class SimFence(Fence):
    """The real one; when it is down is noted, and what it does before its time."""

    def __init__(self, is_needed: Callable[[], bool], fall: Callable[[], None]) -> None:
        self._until = 0.0
        super().__init__(is_needed, lambda: self._falls(fall))

    @property
    def is_down(self) -> bool:
        if super().is_down:
            here().site.note_upset(here().host)
            return True
        return False

    def renew(self, ttl: float | None, until: float | None = None) -> None:
        deadline = 0.0 if ttl is None else here().clock.monotonic() + ttl
        new = deadline if until is None else min(deadline, until)
        if not self.is_down:  # else it falls for the one before
            self._until = new
        super().renew(ttl, until)
        self._until = new

    def _falls(self, fall: Callable[[], None]) -> None:
        early = self._until - here().clock.monotonic()
        if early > 0:
            here().site.note_error(f"a fence fell {early:.3f} s before its lease was over")
        else:
            here().site.note_upset(here().host)
        fall()


class _Pipes:
    """Pipes between tasks and their agent: only their ends are simulated, nothing flows through them."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1_000_000)
        self._open: set[int] = set()
        self._ended: set[int] = set()

    def __contains__(self, fd: int) -> bool:
        return fd >= 1_000_000  # where no real one is

    def open(self) -> tuple[int, int]:
        ours, theirs = next(self._numbers), next(self._numbers)
        self._open.add(ours)
        return ours, theirs

    def end(self, theirs: int) -> None:
        """The last process that could write is gone."""
        self._ended.add(theirs - 1)

    def read(self, ours: int) -> bytes:
        if ours not in self._ended:
            raise BlockingIOError
        return b""

    def close(self, fd: int) -> None:
        self._open.discard(fd)
        self._ended.discard(fd)


PIPES: Final = _Pipes()

# What the service's side does to have an agent: executors.spawn


def home_of(path: str) -> Home:
    """Return the home at *path*, on the host of the process that asks."""
    return here().machine.homes[path]


def is_alive(path: str) -> bool:
    return home_of(path).holder is not None


def connect(path: str) -> Socket:
    listener = home_of(path).listener
    if listener is None or not listener.process.is_alive:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    return Socket(here(), listener)


def spawn(settings: AgentSettings, environ: Mapping[str, str]) -> int:
    """Start an agent of the home that *settings* name; return its pid."""
    del environ
    return boot(home_of(settings.home), settings).pid


def boot(home: Home, settings: AgentSettings) -> SimProcess:
    home.boots += 1
    process = home.host.start(f"agent:{home.path}")
    process.later(process.dice.uniform(*_BOOT), _wake, process, home, settings)
    return process


def has_ended(pid: int) -> bool:
    return all(process.pid != pid for process in here().machine.processes)


def terminate(pid: int) -> None:
    for process in here().machine.processes:
        if process.pid == pid:
            process.later(0.001, process.kill)


# What an agent is: worker.agent


def _wake(process: SimProcess, home: Home, settings: AgentSettings) -> None:
    if home.holder is not None:
        process.later(1.0 if home.holder.is_alive else _FUNERAL, _wake_or_end, process, home, settings)
        return
    home.holder = process
    home.taken += 1
    process.on_death.append(lambda: _bury(process, home))
    process.spawn(_serve(process, home, settings), name="agent")


def _wake_or_end(process: SimProcess, home: Home, settings: AgentSettings) -> None:
    if home.holder is not None:
        process.kill()
    else:
        _wake(process, home, settings)


def _bury(process: SimProcess, home: Home) -> None:
    """The kernel ends the tasks (:class:`tests.simulation.zygote.SimZygote`), then it lets go of the lock."""

    def let_go() -> None:
        if home.holder is process:
            home.holder = None

    home.host.site.agent_deaths.setdefault(home.agent_id, []).append(process.loop.time())
    if home.listener is not None and home.listener.process is process:
        home.listener = None
    process.loop.call_later(_FUNERAL, let_go, context=home.host.site.context)


async def _serve(process: SimProcess, home: Home, settings: AgentSettings) -> None:
    spool: Any = SimSpool(home)
    supervisor = Supervisor(settings, spool, 0, home.agent_id)
    supervisor.warm_up()
    agent: Agent | RemoteAgent
    if settings.remote:
        agent = RemoteAgent(supervisor, spool, settings, home.agent_id, home.taken)
    else:
        agent = Agent(supervisor, settings.patience)
    home.listener = Listener(process, lambda: Link(agent))
    process.service = agent
    agent.look()
    await agent.over.wait()
    home.listener = None
    agent.close()
    supervisor.close()
    process.later(0.01, process.kill)


def path_of(path: Path) -> str:
    return str(path.absolute())
