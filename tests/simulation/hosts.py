"""Hosts and the processes on them, each with the clock, the randomness and the number that it has in the real world."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from tests.simulation.chance import HostClock, SimEntropy
from tests.simulation.loop import PROCESS, Process
from tests.simulation.network import Network

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.simulation.agents import Home
    from tests.simulation.chance import Chance
    from tests.simulation.channels import Transport
    from tests.simulation.loop import SimLoop
    from tests.simulation.weather import Weather
    from tests.simulation.zygote import SimZygote


class Host:
    """A machine: a clock, disks that survive everything, and processes."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.name = name
        self.clock = HostClock(site.loop, boot=1000.0 + site.chance.stream(f"boot/{name}").random() * 1e5)
        #: What is on its disk, by the path of a home.
        self.homes: dict[str, Home] = {}
        self.processes: list[SimProcess] = []
        #: Whether it was taken away, and nothing is ever started on it again.
        self.is_gone = False
        #: Connections between processes here, by the end that made them.
        self.links: list[Transport] = []
        self._pids = 100

    def start(self, name: str) -> SimProcess:
        """Return a new process."""
        self._pids += 1
        process = SimProcess(self, name, self._pids)
        self.processes.append(process)
        process.on_death.append(lambda: self.processes.remove(process))
        return process


class SimProcess(Process):
    """A process that lives on a host."""

    def __init__(self, host: Host, name: str, pid: int) -> None:
        super().__init__(host.site.loop, f"{name}#{pid}", host.name)
        self.site = host.site
        self.machine = host
        self.pid = pid
        self.clock = host.clock
        self.dice: random.Random = host.site.chance.stream(f"process/{self.host}/{self.name}")
        self.entropy = SimEntropy(self.dice)
        #: What forks for it, where it is an agent.
        self.zygote: SimZygote | None = None
        #: What it serves, where it is a service or an agent that can be asked to stop.
        self.service: Any = None


class Site:
    """All hosts, what carries requests between them, and what is written down about them."""

    def __init__(self, loop: SimLoop, chance: Chance, weather: Weather, last_event: Callable[[], int]) -> None:
        """*last_event* tells the number of the last one that is committed."""
        self.loop = loop
        self.last_event = last_event
        self.chance = chance
        self.weather = weather
        #: Where what belongs to no process runs: the kernel, the service manager, whoever makes faults.
        self.context = copy_context()
        self.hosts: dict[str, Host] = {}
        self.network = Network(self)
        #: Whether nothing goes wrong any more, and what is left is to come to an end.
        self.is_calm = False
        #: What tasks wrote, when they died, what clients asked and were answered, and what must never happen.
        self.journal: list[dict[str, Any]] = []
        self.deaths: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.errors: list[str] = []
        #: Where each attempt was run, when something of a host stood still, when each worker was heard of.
        self.ran_on: dict[str, str] = {}
        #: The attempts of tasks, by their processes.
        self.tasks: dict[SimProcess, str] = {}
        self.frozen: dict[str, list[list[float]]] = {}
        self.beats: dict[str, list[float]] = {}
        #: When each worker's heartbeats reached the API, and when the metastore had answered that its lease is renewed.
        self.renewals: dict[str, list[tuple[float, float]]] = {}
        #: Workers that were told that another process has their id: they wait for a person.
        self.superseded: list[SimProcess] = []
        #: When agents died, by the ids of their homes.
        self.agent_deaths: dict[str, list[float]] = {}
        #: When an agent had a reason to give up what it runs, by its host: its lease was over, its zygote was killed,
        #: another process has its id.
        self.upsets: dict[str, list[float]] = {}
        #: Where and when agents knew how an attempt has ended.
        self.ends: dict[str, list[tuple[str, float]]] = {}

    def note_error(self, text: str) -> None:
        self.errors.append(f"{self.loop.time():.3f} {text}")

    def note_upset(self, host: str) -> None:
        self.upsets.setdefault(host, []).append(self.loop.time())

    def host(self, name: str) -> Host:
        if name not in self.hosts:
            self.hosts[name] = Host(self, name)
        return self.hosts[name]


def here() -> SimProcess:
    """Return the process whose code runs at this moment."""
    process = PROCESS.get()
    assert isinstance(process, SimProcess)
    return process
