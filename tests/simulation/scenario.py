"""One seed from its first step to its verdict."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal

from tests.simulation import history, oracles
from tests.simulation.chance import Chance
from tests.simulation.checker import check
from tests.simulation.faults import LAST, overlap, plan
from tests.simulation.loop import Runaway, SimLoop, Stuck
from tests.simulation.memory import MemoryDatabase
from tests.simulation.nemesis import Nemesis
from tests.simulation.profile import draw
from tests.simulation.seams import seams
from tests.simulation.sql import SqlDatabase
from tests.simulation.talk import listening
from tests.simulation.weather import Weather
from tests.simulation.world import LEASE, Size, World, forget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.simulation.checker import Violation
    from tests.simulation.faults import Fault
    from tests.simulation.profile import Profile
    from tests.simulation.store import Database

StoreKind = Literal["memory", "sqlite"]

#: How long rest is waited for, after the last fault: far longer than any pause of the product's own.
PATIENCE: Final = 2_400.0
#: How long it has to last: what is late arrives in it, and changes nothing.
_AFTER: Final = 15.0
_LOOK: Final = 5.0
#: How long an answered cancel may take to reach a task: a lease, its grace, and a little.
_GRACE: Final = LEASE.total_seconds() + 15.0


@dataclass(slots=True)
class Result:
    """What came of a seed."""

    seed: int
    violations: list[Violation] = field(default_factory=list)
    #: What must never happen and no history shows: errors of the product's own code, an end that does not come.
    errors: list[str] = field(default_factory=list)
    #: The same, judged by what only this world knows: which host stood still when, whose agent is alive.
    insights: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    faults: Sequence[Fault] = ()
    lines: list[dict[str, Any]] = field(default_factory=list)
    #: Virtual seconds, and real ones.
    lasted: float = 0.0
    took: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.names

    @property
    def names(self) -> set[str]:
        """What kinds of things are wrong."""
        found = {violation.invariant for violation in self.violations}
        return found | ({"error"} if self.errors else set()) | ({"insight"} if self.insights else set())

    @property
    def digest(self) -> str:
        return history.digest(self.lines)


def run_seed(
    seed: int,
    store: StoreKind,
    *,
    faults: Sequence[Fault] | None = None,
    beside: Sequence[Fault] = (),
    profile: Profile | None = None,
    size: Size | None = None,
    patience: float = PATIENCE,
) -> Result:
    """Simulate *seed* and judge what came of it.

    Its faults are its own or those given, with those *beside* them; so is what it is about.  Rest is waited for
    *patience* virtual seconds.
    """
    size = size or Size()
    chance = Chance(seed)
    weather = Weather(chance)
    loop = SimLoop()
    planned = [*(plan(chance, size, LEASE.total_seconds()) if faults is None else faults), *beside]
    result = Result(seed, faults=planned)
    database = _database(store, loop, chance, weather)
    began = perf_counter()
    with ExitStack() as stack:
        stack.callback(database.close)
        stack.callback(forget, loop)
        stack.enter_context(seams())
        heard = stack.enter_context(listening())
        world = World(loop, chance, weather, database, size, profile or draw(chance))
        is_at_rest = False
        try:
            is_at_rest = loop.run(_play(world, Nemesis(world, planned), patience))
        except (Stuck, Runaway) as error:
            result.errors.append(f"{type(error).__name__}: {error}")
        dump = database.dump()
        double = overlap(planned, LEASE.total_seconds())
        result.lines = history.compose(
            dump, world.site, overlap=double, grace=_GRACE + double, is_at_rest=not result.errors
        )
    if not is_at_rest and not result.errors:
        weather.count("no rest")
    report = check(result.lines)
    result.violations = list(report.violations)
    result.errors += [*loop.errors, *world.site.errors, *heard]
    result.insights = oracles.judge(world, result.lines)
    result.counts = weather.counts + report.counts
    result.lasted, result.took = loop.time(), perf_counter() - began
    return result


def _database(store: StoreKind, loop: SimLoop, chance: Chance, weather: Weather) -> Database:
    if store == "sqlite":
        return SqlDatabase(loop, chance.stream("database"), weather)
    return MemoryDatabase(loop, weather)


async def _play(world: World, nemesis: Nemesis, patience: float) -> bool:
    """Let the world go, put everything right in the end, and wait for rest; return whether it came."""
    world.start()
    nemesis.begin()
    await asyncio.sleep(2.0)
    clients = world.clients()
    busy = [process.spawn(client.run(LAST - 10.0)) for process, client in clients]
    await asyncio.wait(busy)
    await asyncio.sleep(max(0.0, LAST - world.loop.time()))
    nemesis.end()
    settled = [process.spawn(client.settle()) for process, client in clients]
    await asyncio.wait(settled)
    for task in (*busy, *settled):
        task.result()
    until = world.loop.time() + patience
    while world.loop.time() < until:
        await asyncio.sleep(_LOOK)
        world.restart_superseded()
        if world.is_at_rest():
            await asyncio.sleep(_AFTER)
            if world.is_at_rest():
                return True
    return False
