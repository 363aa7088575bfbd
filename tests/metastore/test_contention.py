"""64 claimers on a limit of 3: never over, and never idle while work waits.

A watcher looks at everything in one snapshot, again and again, and the history checker at every admission of the log.
A few hundred claims in the test run, 100,000 on each database with ``--long``.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import func, select

from dag.outcomes import Ended
from metastore.commands.admission import Outlet, admit_ready
from metastore.commands.agents import register_agent
from metastore.commands.attempts import End, EndNoted, Started, end_attempt, start_attempt
from metastore.commands.materialise import start_run
from metastore.commands.workers import Registration, register_worker
from metastore.models.attempts import attempts
from metastore.models.limits import limits
from metastore.models.runs import runs, task_instances
from metastore.postgres import PostgresStore
from metastore.queries import work
from metastore.settings import DatabaseSettings
from metastore.wire import Timeouts
from tests.conftest import open_store
from tests.metastore.flow import Flow
from tests.metastore.history import judged
from tests.world import SeededEntropy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sqlalchemy import Connection

    from metastore.store import Store
    from tests.world import FakeClock

CLAIMERS: Final = 64
LIMIT: Final = 3
#: Tasks of one run; all of them are ready at once.
WIDTH: Final = 50
WORKER: Final = "f" * 32
#: So many looks for work may find nothing while a slot is free and work waits: each claimer has looked several times.
PATIENCE: Final = CLAIMERS * 20

pytestmark = pytest.mark.timeout(6 * 3600)


@dataclass(frozen=True, slots=True)
class Contest:
    """A limit, and how it is fought for."""

    key: str
    document: dict[str, Any]
    #: Where claimer *n* has slots.
    outlet: Callable[[int], Outlet]
    #: Tasks of one run.
    width: int = WIDTH


def _local(n: int) -> Outlet:
    return Outlet("local", f"agent-{n}")


def _one_agent(_: int) -> Outlet:
    return Outlet("local", "agent-0")


def _queue(_: int) -> Outlet:
    return Outlet("farm", None, by_queue=True)


CONTESTS: Final = {
    "max_active_tasks": Contest("dag:d:tasks", {"max_active_tasks": LIMIT}, _local),
    "slots of an agent": Contest("slots:local@agent-0", {}, _one_agent),
    "credits of a queue": Contest("slots:farm/gpu", {"defaults": {"executor": "farm", "queue": "gpu"}}, _queue),
    "max_active_runs": Contest("dag:d:runs", {"max_active_runs": LIMIT}, _local, width=1),
}


@dataclass(slots=True)
class Look:
    """What one snapshot showed."""

    used: int
    holders: int
    waiting: int


class Arena:
    """One contest, with what everybody did so far."""

    def __init__(self, contest: Contest, stores: Sequence[Store], flow: Flow, claims: int) -> None:
        self.contest = contest
        self.stores = stores
        self.flow = flow
        self.wanted = claims
        self.claims = 0
        #: How often somebody looked for work, whatever came of it.
        self.looks = 0
        self.seen: list[Look] = []
        self.over = False

    async def prepare(self) -> None:
        """Accept all runs, and make every place known."""
        for n in range(CLAIMERS):
            slots = [{"name": "local", "slots": LIMIT, "placed": True, "status": "ok", "detail": ""}]
            await self.flow.store.write(register_agent, f"agent-{n}", host="here", executors=slots, lease=None)
        registration = Registration(
            worker_id=WORKER, boot_id="boot", token_hash="", name="w", host="far", pid=1, version="0",
            executor="farm", queues=("gpu",), slots=LIMIT - 1,  # one more is offered than they have
        )  # fmt: skip
        await self.flow.store.write(register_worker, registration, timedelta(days=1))
        tasks: dict[str, Any] = {f"t{number}": {} for number in range(self.contest.width)}
        await self.flow.put(tasks, **self.contest.document)
        for _ in range(self.wanted // self.contest.width):
            await self.flow.create()

    async def fight(self) -> None:
        """Let everybody claim until all is done, and watch."""
        watching = asyncio.create_task(self.watch())
        claiming = [asyncio.create_task(self.claim(n)) for n in range(CLAIMERS)]
        done, _ = await asyncio.wait([watching, *claiming], return_when=asyncio.FIRST_EXCEPTION)
        self.over = True
        await asyncio.gather(*claiming, watching)
        assert all(task.done() for task in done)

    async def claim(self, n: int) -> None:
        """Look for work, do what is found, and look again."""
        store, outlet = self.stores[n % len(self.stores)], self.contest.outlet(n)
        dice = random.Random(n)  # noqa: S311  # repeatable is the point
        while not self.over and self.claims < self.wanted:
            await self._start_a_run(store, dice)
            found = [one.attempt_id for one in await store.write(admit_ready, [outlet])]
            self.looks += 1
            while found:
                found += await self._work(store, found.pop(), outlet, more=dice.random() < 0.5)
            await asyncio.sleep(dice.random() * 0.05)

    async def _start_a_run(self, store: Store, dice: random.Random) -> None:
        if self.contest.width > 1 and dice.random() > 0.1:
            return
        waiting = await store.read(work.startable_runs, self.flow.clock.now())
        if waiting:
            await store.write(start_run, dice.choice(waiting), "local", [])

    async def _work(self, store: Store, attempt_id: str, outlet: Outlet, *, more: bool) -> list[Any]:
        """Start and end an attempt; the end brings more, or leaves the slot to whoever looks next."""
        key = None if outlet.placed_on else "key"
        started = await store.write(start_attempt, attempt_id, "boot", outlet.placed_on or WORKER, key_hash=key)
        assert isinstance(started, Started)
        self.claims += 1
        await asyncio.sleep(0)
        end = End(attempt_id=attempt_id, ended=Ended.SUCCESS, boot_id="boot", key_hash=key)
        noted: EndNoted = await store.write(end_attempt, end, [outlet] if more else [])
        assert noted.accepted
        return [one.attempt_id for one in noted.admitted]

    async def watch(self) -> None:
        """Look at limit, holders and work in one snapshot, until the others are through."""
        store, idle_since = self.stores[-1], None
        while not self.over and self.claims < self.wanted:
            claims = self.claims
            look = await store.read(self._look)
            self.seen.append(look)
            assert look.used == look.holders <= LIMIT, look
            idle = look.used < LIMIT and look.waiting > 0
            if not idle or idle_since is None or idle_since[0] != claims:
                idle_since = (claims, self.looks) if idle else None
            assert idle_since is None or self.looks - idle_since[1] < PATIENCE, f"idle while work waits: {look}"
            await asyncio.sleep(0.001)

    def _look(self, conn: Connection) -> Look:
        key = self.contest.key
        used = conn.execute(select(limits.c.used).where(limits.c.key == key)).scalar_one()
        active, i = attempts.c.state.in_(["queued", "running"]), task_instances.c
        waiting = select(func.count()).where(i.state == "scheduled")
        match key:
            case "dag:d:runs":
                holders = select(func.count()).where(runs.c.state.in_(["running", "cancelling"]))
                waiting = select(func.count()).where(runs.c.state == "queued")
            case "dag:d:tasks":
                holders = select(func.count()).select_from(attempts).where(active)
            case _:
                holders = select(func.count()).select_from(attempts).where(active, attempts.c.slots == key)
        return Look(used, conn.execute(holders).scalar_one(), conn.execute(waiting).scalar_one())


@pytest.fixture
async def stores(database_url: str, clock: FakeClock, *, long: bool) -> AsyncIterator[list[Store]]:
    """With --long as many connections as there are claimers, else half; on SQLite one writer, whoever asks."""
    settings = DatabaseSettings(database_url)
    opened: list[Store] = []
    if settings.dialect == "sqlite":
        opened.append(await open_store(database_url, clock, SeededEntropy(1)))
    else:
        patient = Timeouts(patience=120, lock=60, command=90, statement=80, idle_in_transaction=90)
        for seed in range(CLAIMERS // (8 if long else 16)):
            store = await PostgresStore.open(
                settings, clock=clock, entropy=SeededEntropy(seed), timeouts=patient, notify=False
            )
            opened.append(store)
    yield opened
    for one in opened:
        await one.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTESTS)
async def test_many_claimers_never_overshoot_a_limit_and_never_leave_it_idle(
    stores: list[Store], clock: FakeClock, name: str, *, long: bool
) -> None:
    contest, flow = CONTESTS[name], Flow(stores[0], clock)
    arena = Arena(contest, stores, flow, 25_000 if long else WIDTH)
    await arena.prepare()
    await arena.fight()
    assert arena.claims == arena.wanted
    assert {look.used for look in arena.seen} >= {LIMIT}, "the limit was never reached: nobody fought for it"
    report = await judged(stores[0])
    assert not report.total, str(report)
    assert report.counts["starts"] == arena.wanted
    await flow.check()
