"""Everything that goes wrong, planned ahead: a list of faults that a seed gives, and that can be made shorter."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from dag.errors import Unavailable

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from tests.simulation.chance import Chance
    from tests.simulation.hosts import Host, SimProcess
    from tests.simulation.units import Unit
    from tests.simulation.world import Size, World

#: Between these moments faults strike; afterwards everything is put right.
FIRST: Final = 4.0
LAST: Final = 90.0
_MOST: Final = 40

#: What fails now and then while a window is open, and how often at the worst.
_WEATHER: Final = {
    "db.error": 0.2,
    "db.statement": 0.03,
    "db.lost_reply": 0.3,
    "db.crash": 0.02,
    "db.stall": 0.02,
    "db.slow": 0.3,
    "db.skip_locked": 0.5,
    "hint.lost": 1.0,
    "http.lost_request": 0.3,
    "http.lost_answer": 0.4,
    "http.slow": 0.3,
    "broker.lost": 0.5,
    "broker.twice": 0.6,
    "broker.late": 0.5,
    "broker.disorder": 0.8,
    "broker.ack_lost": 0.5,
    "broker.slow": 0.3,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One of them: what, when, for how long, and to whom."""

    kind: str
    at: float
    lasts: float = 0.0
    target: str = ""
    amount: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.at:7.2f} s  {self.kind:18}"]
        if self.target:
            parts.append(self.target)
        if self.amount:
            parts.append(f"x {self.amount:g}")
        if self.lasts:
            parts.append(f"for {self.lasts:.2f} s")
        return " ".join(parts)


def plan(chance: Chance, size: Size, lease: float) -> list[Fault]:
    """Return the faults of a seed, in their order."""
    dice = chance.stream("faults")
    names = {
        "scheduler": [f"s{n}" for n in range(1, size.schedulers + 1)],
        "api": [f"a{n}" for n in range(1, size.apis + 1)],
        "worker": [f"w{n}" for n in range(1, size.workers + 1)],
    }
    # A seed strikes everybody, or one or two of each; what needs the same victim twice is found sooner.
    for role, hosts in names.items():
        names[role] = sorted(dice.sample(hosts, min(len(hosts), dice.choice((1, 2, len(hosts))))))
    number = dice.choice((0, 4, 8, 14, 20, 28, _MOST))
    kinds = sorted(_PLANNERS)
    # Some kinds often and others not at all: the same for what needs several of one kind.
    liked = dice.sample(kinds, dice.choice((1, 2, 4, 8, len(kinds))))
    found = [_PLANNERS[dice.choice(liked)](dice, names, lease) for _ in range(number)]
    if dice.random() < 0.3:
        found += [_climate(dice) for _ in range(dice.randint(1, 3))]
    return sorted(found, key=lambda fault: fault.at)


def _climate(dice: random.Random) -> Fault:
    """Return a weather that lasts, and that is as bad as it gets."""
    kind = dice.choice(sorted(_WEATHER))
    return Fault("weather", FIRST, LAST - FIRST, kind, _WEATHER[kind])


def _when(dice: random.Random) -> float:
    return round(dice.uniform(FIRST, LAST), 3)


def _holder(dice: random.Random, names: dict[str, list[str]]) -> str:
    return dice.choice([*names["scheduler"], *names["worker"], *names["worker"]])


def _anyone(dice: random.Random, names: dict[str, list[str]]) -> str:
    return dice.choice([*names["scheduler"], *names["worker"], *names["api"]])


def _freezing(dice: random.Random, lease: float) -> float:
    return round(lease * dice.choice((0.1, 0.3, 0.8, 1.2, 2.0, 4.0)) * (0.8 + 0.4 * dice.random()), 3)


def _outage(dice: random.Random) -> float:
    return round(dice.choice((0.5, 3.0, 10.0, 30.0)) * (0.5 + dice.random()), 3)


def _clock_jump(dice: random.Random) -> float:
    return dice.choice((-1, 1)) * dice.choice((0.5, 5.0, 60.0, 3600.0, 90000.0))


def _weather_fault(dice: random.Random, _names: dict[str, list[str]], _lease: float) -> Fault:
    kind = dice.choice(sorted(_WEATHER))
    amount = round(_WEATHER[kind] * dice.choice((0.2, 0.5, 1.0)), 3)
    return Fault("weather", _when(dice), round(dice.uniform(5, 50), 3), kind, amount)


_PLANNERS: Final[dict[str, Callable[[random.Random, dict[str, list[str]], float], Fault]]] = {
    # amount: how many steps it still takes; lasts: how long until it is started again.
    "crash": lambda d, n, _: Fault("crash", _when(d), _outage(d), _anyone(d, n), d.randint(1, 40)),
    "agent": lambda d, n, _: Fault("agent", _when(d), 0, _holder(d, n), d.randint(1, 30)),
    "zygote": lambda d, n, _: Fault("zygote", _when(d), 0, _holder(d, n)),
    "stop": lambda d, n, _: Fault("stop", _when(d), _outage(d), d.choice(n["scheduler"]), d.choice((0, 1, 5))),
    "freeze": lambda d, n, lease: Fault("freeze", _when(d), _freezing(d, lease), _anyone(d, n)),
    "freeze.agent": lambda d, n, lease: Fault("freeze.agent", _when(d), _freezing(d, lease), _holder(d, n)),
    "freeze.service": lambda d, n, lease: Fault("freeze.service", _when(d), _freezing(d, lease), _anyone(d, n)),
    "clock": lambda d, n, _: Fault("clock", _when(d), 0, _anyone(d, n), _clock_jump(d)),
    "link": lambda d, n, _: Fault("link", _when(d), 0, _holder(d, n)),
    "partition": lambda d, n, lease: Fault("partition", _when(d), _freezing(d, lease), d.choice(n["worker"])),
    "partition.long": lambda d, n, lease: Fault(
        "partition", _when(d), round(lease * d.uniform(1, 4), 3), d.choice(n["worker"])
    ),
    "disk": lambda d, n, _: Fault("disk", _when(d), _outage(d), d.choice(n["worker"])),
    "clone": lambda d, n, lease: Fault("clone", _when(d), round(lease * d.uniform(0.5, 3), 3), d.choice(n["worker"])),
    "gone": lambda d, n, _: Fault("gone", _when(d), 0, d.choice(n["worker"])),
    "database": lambda d, _n, _: Fault("database", _when(d), _outage(d)),
    "database.restart": lambda d, _n, _: Fault("database.restart", _when(d)),
    "api": lambda d, _n, _: Fault("api", _when(d), _outage(d) + d.choice((0, 20))),
    "broker": lambda d, _n, _: Fault("broker", _when(d), _outage(d)),
    "broker.restart": lambda d, _n, _: Fault("broker.restart", _when(d)),
    "broker.flush": lambda d, _n, _: Fault("broker.flush", _when(d)),
    "weather": _weather_fault,
    "weather.more": _weather_fault,
}


class Nemesis:
    """Strikes as planned, and puts everything right in the end."""

    def __init__(self, world: World, faults: Sequence[Fault]) -> None:
        self._world = world
        self._faults = faults
        self._weather = world.weather
        self._units = {unit.host.name: unit for unit in world.units}
        self._endings: list[Callable[[], None]] = []
        self._is_over = False

    def begin(self) -> None:
        for fault in self._faults:
            self._later(fault.at - self._world.loop.time(), partial(self._strike, fault))

    def end(self) -> None:
        """Put everything right: from now on the world is as it should be."""
        self._is_over = self._world.site.is_calm = True
        for undo in list(self._endings):  # each takes itself out
            undo()
        for unit in self._units.values():
            if unit.host.is_gone:
                continue
            unit.rest = 0.5
            if unit.process is None:
                unit.start()
            unit.process.fuse = None  # type: ignore[union-attr]  # it was just started, if it was not there
        for host in self._world.site.hosts.values():
            for process in host.processes:
                process.fuse = None
            host.clock.offset = timedelta(0)

    def _later(self, delay: float, act: Callable[[], None]) -> None:
        self._world.loop.call_later(max(0.0, delay), act, context=self._world.site.context)

    def _strike(self, fault: Fault) -> None:
        if not self._is_over:
            _STRIKES[fault.kind](self, fault)

    def _until(self, fault: Fault, undo: Callable[[], None]) -> None:
        """Have *undo* done once: when the fault is over, or everything is put right."""

        def once() -> None:
            if once in self._endings:
                self._endings.remove(once)
                undo()

        self._endings.append(once)
        self._later(fault.lasts, once)

    def _host(self, fault: Fault) -> Host:
        return self._world.site.hosts[fault.target]

    def _agent(self, fault: Fault) -> SimProcess | None:
        return self._world.home(fault.target).holder

    # The faults

    def _crash(self, fault: Fault) -> None:
        unit: Unit = self._units[fault.target]
        if unit.process is not None:
            self._weather.count(f"crash.{unit.name}")
            unit.rest = fault.lasts
            unit.process.fuse = int(fault.amount)

    def _crash_agent(self, fault: Fault) -> None:
        process = self._agent(fault)
        if process is not None:
            self._weather.count("crash.agent")
            process.fuse = int(fault.amount)

    def _zygote(self, fault: Fault) -> None:
        process = self._agent(fault)
        if process is not None and process.zygote is not None:
            self._weather.count("crash.zygote")
            process.later(0, process.zygote.die)

    def _stop(self, fault: Fault) -> None:
        """SIGTERM to a scheduler: it drains."""
        unit = self._units[fault.target]
        process = unit.process
        if process is None or process.service is None:
            return
        self._weather.count("stop.scheduler")
        unit.rest = fault.lasts
        service = process.service
        process.service = None

        async def stop() -> None:
            with suppress(Unavailable):
                await service.stop(drain=timedelta(seconds=fault.amount))
            process.kill()

        process.spawn(stop(), name="stop")

    def _freeze(self, fault: Fault) -> None:
        self._weather.count("freeze.host")
        self._freeze_all(fault, list(self._host(fault).processes))

    def _freeze_agent(self, fault: Fault) -> None:
        process = self._agent(fault)
        if process is not None:
            self._weather.count("freeze.agent")
            self._freeze_all(fault, [process])

    def _freeze_service(self, fault: Fault) -> None:
        process = self._units[fault.target].process
        if process is not None:
            self._weather.count("freeze.service")
            self._freeze_all(fault, [process])

    def _freeze_all(self, fault: Fault, processes: list[SimProcess]) -> None:
        processes = [process for process in processes if not process.is_frozen]
        for process in processes:
            process.freeze()
        stands = [self._world.loop.time()]
        self._world.site.frozen.setdefault(fault.target, []).append(stands)

        def thaw() -> None:
            stands.append(self._world.loop.time())
            for process in processes:
                process.thaw()

        self._until(fault, thaw)

    def _clone(self, fault: Fault) -> None:
        self._weather.count("clone")
        twin = self._world.clone(fault.target)

        def end() -> None:
            # Somebody notices: the copy is destroyed, the original is started again.
            for host in (twin, self._host(fault)):
                for process in list(host.processes):
                    process.kill()

        self._until(fault, end)

    def _gone(self, fault: Fault) -> None:
        """Take a worker's host away for good; the first one stays, and serves every queue."""
        host = self._host(fault)
        if host.name == "w1" or host.is_gone:
            return
        self._weather.count("host.gone")
        host.is_gone = True
        self._units[host.name].rest = None
        for process in list(host.processes):
            process.kill()

    def _clock(self, fault: Fault) -> None:
        self._weather.count("clock.forward" if fault.amount > 0 else "clock.back")
        self._host(fault).clock.offset += timedelta(seconds=fault.amount)

    def _link(self, fault: Fault) -> None:
        for transport in list(self._host(fault).links):
            self._weather.count("link.broken")
            transport.sever()

    def _partition(self, fault: Fault) -> None:
        self._down(fault, f"net:{fault.target}")

    def _disk(self, fault: Fault) -> None:
        self._down(fault, f"disk:{fault.target}")

    def _broker(self, fault: Fault) -> None:
        self._down(fault, "broker")

    def _database(self, fault: Fault) -> None:
        self._weather.count("db.outage")
        self._world.database.break_all()
        self._down(fault, "database")

    def _database_restart(self, _fault: Fault) -> None:
        self._weather.count("db.restart")
        self._world.database.break_all()

    def _api(self, fault: Fault) -> None:
        self._weather.count("api.outage")
        for unit in self._world.apis:
            unit.rest = fault.lasts
            if unit.process is not None:
                unit.process.kill()

    def _broker_restart(self, _fault: Fault) -> None:
        self._weather.count("broker.restart")
        self._world.broker.restart()

    def _broker_flush(self, _fault: Fault) -> None:
        self._weather.count("broker.flush")
        self._world.broker.flush()

    def _begin_weather(self, fault: Fault) -> None:
        self._weather.begin(fault.target, fault.amount)
        self._until(fault, lambda: self._weather.end(fault.target, fault.amount))

    def _down(self, fault: Fault, name: str) -> None:
        self._weather.take_down(name)
        self._until(fault, lambda: self._weather.bring_up(name))


_STRIKES: Final[dict[str, Callable[[Nemesis, Fault], None]]] = {
    "crash": Nemesis._crash,
    "agent": Nemesis._crash_agent,
    "zygote": Nemesis._zygote,
    "stop": Nemesis._stop,
    "freeze": Nemesis._freeze,
    "freeze.agent": Nemesis._freeze_agent,
    "freeze.service": Nemesis._freeze_service,
    "clock": Nemesis._clock,
    "clone": Nemesis._clone,
    "gone": Nemesis._gone,
    "link": Nemesis._link,
    "partition": Nemesis._partition,
    "disk": Nemesis._disk,
    "database": Nemesis._database,
    "database.restart": Nemesis._database_restart,
    "api": Nemesis._api,
    "broker": Nemesis._broker,
    "broker.restart": Nemesis._broker_restart,
    "broker.flush": Nemesis._broker_flush,
    "weather": Nemesis._begin_weather,
}


def overlap(faults: Sequence[Fault], lease: float) -> float:
    """Return for how long an attempt may go on beside its successor, all faults considered.

    A host that stood still goes on for a moment with what it had; the original of a copied worker hears with its next
    heartbeat that it is not the one.
    """
    frozen = [
        fault.lasts for fault in faults if fault.kind in ("freeze", "freeze.agent") and not fault.target.startswith("a")
    ]
    cloned = [lease + 2 for fault in faults if fault.kind == "clone"]
    return max([*frozen, *cloned], default=0.0)
