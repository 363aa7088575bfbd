"""The whole world of one seed: hosts, services, a broker, a metastore, clients; and what came of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from prometheus_client import CollectorRegistry

from dag.errors import Unavailable
from executors import local as local_executor
from executors.base import ExecutorConfig
from scheduler.loop import Scheduler
from scheduler.settings import SchedulerSettings
from tests.simulation.agents import Home
from tests.simulation.api import ApiProcess
from tests.simulation.broker import Broker
from tests.simulation.clients import Client
from tests.simulation.feeder import Feeder
from tests.simulation.hosts import Site
from tests.simulation.medium import queue_executor
from tests.simulation.requests import Requests
from tests.simulation.shapes import QUEUES
from tests.simulation.store import Exchange, SimStore
from tests.simulation.units import Unit

if TYPE_CHECKING:
    from tests.simulation.chance import Chance
    from tests.simulation.hosts import Host, SimProcess
    from tests.simulation.loop import SimLoop
    from tests.simulation.profile import Profile
    from tests.simulation.store import Database
    from tests.simulation.weather import Weather

#: Short, so that a minute holds many of them.
LEASE: Final = timedelta(seconds=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything there is."""

    schedulers: int = 3
    apis: int = 2
    workers: int = 5
    clients: int = 2
    dags: int = 3
    tasks: int = 6
    #: Slots of a scheduler's host, and of a worker.
    slots: int = 3


class World:
    """Everything that there is, running."""

    def __init__(  # what a seed is made of
        self, loop: SimLoop, chance: Chance, weather: Weather, database: Database, size: Size, profile: Profile
    ) -> None:
        self.loop = loop
        self.chance = chance
        self.weather = weather
        self.database = database
        self.size = size
        self.site = Site(loop, chance, weather, database.last_event)
        self.profile = profile
        dice = chance.stream("world")
        self.broker = Broker(self.site, chance.stream("broker"), tells=dice.random() < 0.6)
        self._exchange = Exchange(loop, chance.stream("hints"), weather)
        self._requests = Requests()
        #: What each worker serves, by its host.
        self._queues: dict[str, tuple[str, ...]] = {}
        self._settings = SchedulerSettings(
            longest_sleep=timedelta(seconds=4),
            safety_poll=timedelta(seconds=4),
            lease=LEASE,
            beat=timedelta(seconds=3),
        )
        self.schedulers = [self._scheduler(n) for n in range(1, size.schedulers + 1)]
        self.apis = [self._unit(f"a{n}", "api", self._serve_api) for n in range(1, size.apis + 1)]
        self.feeders = [self._worker(n, dice) for n in range(1, size.workers + 1)]
        self.units = [*self.schedulers, *self.apis, *self.feeders]

    def start(self) -> None:
        for unit in self.units:
            unit.start()

    def clone(self, host: str) -> Host:
        """Start a copy of a worker on another host, as a restored backup or a copied machine does."""
        original = self.home(host)
        twin = self._make_home(f"{host}.copy{len(self.site.hosts)}")
        twin.agent_id, twin.ends, twin.begun = original.agent_id, dict(original.ends), dict(original.begun)
        process = twin.host.start("feeder")
        queues = self._queues[host]
        process.spawn(Feeder(process, twin, self.broker, name=host, queues=queues, slots=self.size.slots).run())
        return twin.host

    def clients(self) -> list[tuple[SimProcess, Client]]:
        """Return the clients and their processes; each has DAGs of its own, and asks for those of nobody else."""
        found = []
        for n in range(1, self.size.clients + 1):
            process = self.site.host(f"c{n}").start("client")
            dags = [f"c{n}d{d}" for d in range(1, self.size.dags + 1)]
            dice = self.chance.stream(f"client/{n}")
            found.append((process, Client(process, f"c{n}", dice, dags, self.profile, size=self.size.tasks)))
        return found

    def slots_of(self, queue: str) -> int:
        """Return how many slots the workers have that serve *queue* and are still there."""
        serving = [
            host for host, queues in self._queues.items() if queue in queues and not self.site.hosts[host].is_gone
        ]
        return len(serving) * self.size.slots

    def restart_superseded(self) -> None:
        """Do what a person does about a worker that says that another one has its id, when nobody has it any more.

        No copy is needed for that: a registration that a frozen API kept is taken after the one of the next process.
        """
        for process in self.site.superseded:
            if process.is_alive and process.host in self._queues:
                self.weather.count("worker.superseded")
                for each in list(process.machine.processes):
                    each.kill()
        self.site.superseded.clear()

    def is_at_rest(self) -> bool:
        """Whether nothing is left to do, and every worker that is still there serves and has been heard of."""
        since = self.loop.time() - LEASE.total_seconds()
        beats = [
            self.site.beats.get(self.home(host).agent_id, ())
            for host in self._queues
            if not self.site.host(host).is_gone
        ]
        serve = all(self._serves(unit) for unit in self.feeders if not unit.host.is_gone)
        return serve and self.database.is_at_rest() and all(beat and beat[-1] > since for beat in beats)

    def _serves(self, worker: Unit) -> bool:
        """Whether neither a worker's feeder nor its agent is about to end."""
        agent = self.home(worker.host.name).holder
        if worker.process is None or worker.process.service is None or agent is None or agent.service is None:
            return False
        return not agent.service.takes_nothing()

    def home(self, host: str) -> Home:
        (home,) = self.site.host(host).homes.values()
        return home

    def store(self, process: SimProcess) -> SimStore:
        return SimStore(self.database, process, self._exchange, process.entropy, process.dice, self.weather)

    # Services

    def _unit(self, host: str, name: str, serve: Any) -> Unit:
        return Unit(self.site.host(host), name, serve)

    def _make_home(self, host: str) -> Home:
        machine = self.site.host(host)
        path = f"/sim/{host}"
        machine.homes[path] = home = Home(machine, path, self.chance.stream(f"home/{host}").randbytes(16).hex())
        return home

    def _scheduler(self, n: int) -> Unit:
        home = self._make_home(f"s{n}")

        async def serve(process: SimProcess) -> None:
            place = local_executor.create(self._config(home)), queue_executor(self.broker)
            process.on_death.append(lambda: forget(self.loop, home))
            scheduler = Scheduler(
                store=self.store(process),
                executors=place,
                clock=process.clock,
                entropy=process.entropy,
                registry=CollectorRegistry(),
                settings=self._settings,
            )
            process.service = scheduler
            try:
                await scheduler.run()
            except Unavailable:
                process.kill()

        return self._unit(f"s{n}", "scheduler", serve)

    def _config(self, home: Home) -> ExecutorConfig:
        folder = Path(home.path)
        return ExecutorConfig(
            name="local",
            home=folder,
            code_dir=folder / "code",
            log_dir=folder / "logs",
            task_python="python",
            parallelism=self.size.slots,
        )

    async def _serve_api(self, process: SimProcess) -> None:
        executors = [queue_executor(self.broker)]
        api = ApiProcess(process, self.store(process), executors, LEASE, self._requests)
        await api.run()
        await asyncio.Event().wait()

    def _worker(self, n: int, dice: Any) -> Unit:
        home = self._make_home(f"w{n}")
        queues = QUEUES if n == 1 else tuple(sorted(dice.sample(QUEUES, dice.randint(1, len(QUEUES)))))
        self._queues[f"w{n}"] = queues

        async def serve(process: SimProcess) -> None:
            feeder = Feeder(process, home, self.broker, name=f"w{n}", queues=queues, slots=self.size.slots)
            await feeder.run()

        return self._unit(f"w{n}", "feeder", serve)


def forget(loop: SimLoop, home: Home | None = None) -> None:
    """Drop the clients of agents, those of one *home* or all: what a process has in its memory goes with it.

    Nothing that outlives the loop may hold on to it: a world is a megabyte.
    """
    clients = local_executor._clients
    for key in [key for key in clients if cast("Any", key[0]) is loop and (home is None or str(key[1]) == home.path)]:
        del clients[key]
