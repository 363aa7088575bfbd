"""What strikes: the planned faults, done to the world one by one; in the end everything is put right."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from dag.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.simulation.faults import Fault
    from tests.simulation.hosts import Host, SimProcess
    from tests.simulation.units import Unit
    from tests.simulation.world import World


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
            unit.rest = fault.lasts
            unit.process.light(int(fault.amount), partial(self._weather.count, f"crash.{unit.name}"))

    def _crash_agent(self, fault: Fault) -> None:
        process = self._agent(fault)
        if process is not None:
            process.light(int(fault.amount), partial(self._weather.count, "crash.agent"))

    def _zygote(self, fault: Fault) -> None:
        process = self._agent(fault)
        if process is not None and process.zygote is not None:
            self._weather.count("crash.zygote")
            process.later(0, process.zygote.die)

    def _stop(self, fault: Fault) -> None:
        """SIGTERM to a service: it drains."""
        unit = self._units[fault.target]
        process = unit.process
        if process is None or process.service is None:
            return
        self._weather.count(f"stop.{unit.name}")
        unit.rest = fault.lasts
        service = process.service
        process.service = None

        async def stop() -> None:
            with suppress(Unavailable):
                await service.stop(drain=timedelta(seconds=fault.amount))
            process.kill()

        process.spawn(stop(), name="stop")

    def _stop_agent(self, fault: Fault) -> None:
        process = self._agent(fault)
        if process is not None and process.service is not None:
            self._weather.count("stop.agent")
            process.later(0, process.service.drain, 0.0)

    def _freeze(self, fault: Fault) -> None:
        processes = list(self._host(fault).processes)
        if processes:
            self._weather.count("freeze.host")
        self._freeze_all(fault, processes)

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

    def _clock_stands(self, fault: Fault) -> None:
        """The wall clock of a host stands still, then goes on from there."""
        self._weather.count("clock.stands")
        clock = self._host(fault).clock
        clock.stand()
        self._until(fault, clock.go_on)

    def _link(self, fault: Fault) -> None:
        for transport in list(self._host(fault).links):
            self._weather.count("link.broken")
            transport.sever()

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


def _from_there(what: str) -> Callable[[Nemesis, Fault], None]:
    """Have *what* be away for one host, and there for all others."""
    return lambda nemesis, fault: nemesis._down(fault, f"{what}:{fault.target}")


_STRIKES: Final[dict[str, Callable[[Nemesis, Fault], None]]] = {
    "crash": Nemesis._crash,
    "agent": Nemesis._crash_agent,
    "zygote": Nemesis._zygote,
    "stop": Nemesis._stop,
    "stop.worker": Nemesis._stop,
    "stop.api": Nemesis._stop,
    "stop.agent": Nemesis._stop_agent,
    "freeze": Nemesis._freeze,
    "freeze.agent": Nemesis._freeze_agent,
    "freeze.service": Nemesis._freeze_service,
    "clock": Nemesis._clock,
    "clock.stands": Nemesis._clock_stands,
    "clone": Nemesis._clone,
    "gone": Nemesis._gone,
    "link": Nemesis._link,
    "partition": _from_there("net"),
    "disk": _from_there("disk"),
    "disk.broken": _from_there("broken disk"),
    "database": Nemesis._database,
    "database.cut": _from_there("database"),
    "database.restart": Nemesis._database_restart,
    "api": Nemesis._api,
    "broker": Nemesis._broker,
    "broker.cut": _from_there("broker"),
    "broker.restart": Nemesis._broker_restart,
    "broker.flush": Nemesis._broker_flush,
    "weather": Nemesis._begin_weather,
}
