"""Two at the same moment, on real Postgres: what row locks, compare-and-set and constraints have to decide."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.exc import IntegrityError

from dag.ids import new_id
from dag.outcomes import Ended
from metastore.commands.admission import Outlet, admit_ready
from metastore.commands.agents import beat, expired_agents, register_agent
from metastore.commands.attempts import End, Started, end_attempt, start_attempt
from metastore.commands.materialise import start_run
from metastore.commands.stopping import cancel_run
from metastore.models.agents import agents
from metastore.models.attempts import attempts
from metastore.models.limits import limits
from metastore.queries import work
from tests.conftest import open_store
from tests.metastore.flow import Flow
from tests.world import SeededEntropy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from metastore.commands.admission import Admitted
    from metastore.store import Store, Tx
    from tests.world import FakeClock

pytestmark = pytest.mark.postgres


@pytest.fixture
async def stores(postgres_url: str, clock: FakeClock) -> AsyncIterator[list[Store]]:
    """Three processes' worth of stores on one Postgres."""
    opened = [await open_store(postgres_url, clock, SeededEntropy(seed)) for seed in range(1, 4)]
    yield opened
    for store in opened:
        await store.close()


@pytest.fixture
async def flows(stores: list[Store], clock: FakeClock) -> list[Flow]:
    """One scheduler for each store, with an agent of its own."""
    made = [Flow(store, clock, agent=f"agent-{n}", boot=f"boot-{n}") for n, store in enumerate(stores)]
    for flow in made:
        await flow.slots(3)
    return made


async def test_claimers_at_once_never_overshoot_a_limit(flows: list[Flow]) -> None:
    flow = flows[0]
    await flow.put({f"t{number}": {} for number in range(40)}, max_active_tasks=3)
    run = await flow.create()
    await flow.begin(run)
    outlets = [[one.outlet] for one in flows]
    rounds = [
        flows[n % 3].store.write(admit_ready, outlets[n % 3])
        for n in range(24)
    ]  # fmt: skip
    await asyncio.gather(*rounds)
    await flow.check()
    assert (await flow.used())["dag:d:tasks"] <= 3
    for one in flows:  # what was passed over because somebody held it at that moment
        await one.admit()
    await flow.check()
    assert (await flow.used())["dag:d:tasks"] == 3
    active = await flow.store.read(work.placed, [one.agent for one in flows])
    assert len(active) == 3


async def test_an_agent_never_gets_more_than_its_slots_from_claims_under_skip_locked(flows: list[Flow]) -> None:
    flow = flows[0]
    await flow.put({f"t{number}": {} for number in range(40)})
    for _ in range(5):
        await flow.create()
    starts = await flow.store.read(work.startable_runs, flow.clock.now())
    await asyncio.gather(*(flows[n % 3].store.write(start_run, run, "local", []) for n, run in enumerate(starts)))
    await asyncio.gather(*(flows[n % 3].admit() for n in range(24)))
    for one in flows:
        assert len(await flow.store.read(work.placed, [one.agent])) <= 3
        await one.admit()  # what was passed over because somebody held it at that moment
        assert len(await flow.store.read(work.placed, [one.agent])) == 3
    await flow.check()


async def test_two_schedulers_start_a_run_once(flows: list[Flow]) -> None:
    flow = flows[0]
    await flow.put({"a": {}})
    run = await flow.create()
    admitted = await asyncio.gather(*(one.begin(run) for one in flows for _ in range(4)))
    assert sum(len(batch) for batch in admitted) == 1
    kinds = [event.kind for event in await flow.events(run)]
    assert kinds == ["run.queued", "run.running", "task.scheduled", "task.queued"]


async def test_max_active_runs_holds_against_starts_at_once(flows: list[Flow]) -> None:
    flow = flows[0]
    await flow.put({"a": {}}, max_active_runs=2)
    runs = [await flow.create() for _ in range(8)]
    await asyncio.gather(*(flows[n % 3].begin(run) for n, run in enumerate(runs)))
    assert [(await flow.run(run)).state for run in runs].count("running") == 2
    await flow.check()


async def test_one_of_many_starts_of_an_attempt_wins(flows: list[Flow]) -> None:
    flow = flows[0]
    await flow.put({"a": {}})
    _, [one] = await flow.trigger()
    answers = await asyncio.gather(
        *(flows[n % 3].store.write(start_attempt, one.attempt_id, f"boot-{n}", flow.agent) for n in range(12))
    )
    assert sum(isinstance(answer, Started) for answer in answers) == 1


async def test_one_of_many_ends_of_an_attempt_is_accepted(flows: list[Flow]) -> None:
    flow = flows[0]
    await flow.put({"a": {}, "b": {"depends_on": ["a"]}})
    run, [one] = await flow.trigger()
    await flow.start(one.attempt_id)
    ends = [
        End(attempt_id=one.attempt_id, ended=ended, boot_id=flow.boot)
        for ended in (Ended.SUCCESS, Ended.FAILED, Ended.TIMED_OUT, Ended.SUCCESS)
    ]
    noted = await asyncio.gather(
        *(flows[n % 3].store.write(end_attempt, end, [flow.outlet]) for n, end in enumerate(ends * 3))
    )
    assert sum(each.accepted for each in noted) == 1
    seqs = [event.run_seq for event in await flow.events(run)]
    assert seqs == list(range(1, len(seqs) + 1))
    await flow.check()


async def test_a_cancel_does_not_miss_an_attempt_that_is_inserted_beside_it(flows: list[Flow]) -> None:
    """Without the run's lock, an attempt queued by an admission at the same moment would survive the cancel."""
    flow = flows[0]
    await flow.put({f"t{number}": {} for number in range(9)})
    for _ in range(12):
        run = await flow.create()
        await flow.store.write(start_run, run.id, "local", [])
        await asyncio.gather(
            *(one.admit() for one in flows), flows[1].store.write(cancel_run, "d", run.run_id, actor="key:test")
        )
        assert (await flow.run(run)).state == "cancelled"
        assert set((await flow.states(run)).values()) == {"cancelled"}
        await flow.check()
    assert await flow.store.read(work.placed, [one.agent for one in flows]) == []


async def test_a_cancel_waits_for_an_admission_that_is_about_to_commit(flows: list[Flow]) -> None:
    flow = flows[0]
    await flow.put({"a": {}, "b": {}})
    run = await flow.create()
    await flow.store.write(start_run, run.id, "local", [])
    admitting = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow_admission(tx: Tx) -> list[Admitted]:
        admitted = admit_ready(tx, [flow.outlet])
        loop.call_soon(admitting.set)
        tx.conn.execute(text("SELECT pg_sleep(0.4)"))
        return admitted

    admission = asyncio.create_task(flow.store.write(slow_admission))
    await admitting.wait()
    assert (await flows[1].cancel(run)).state == "cancelled"
    for one in await admission:
        assert not isinstance(await flow.start(one.attempt_id), Started)
    assert await flow.states(run) == {"a": "cancelled", "b": "cancelled"}
    await flow.check()


async def test_nothing_starts_after_a_cancel_was_answered(flows: list[Flow]) -> None:
    flow = flows[0]
    await flow.put({"a": {}, "b": {}, "c": {}})
    for _ in range(10):
        run, admitted = await flow.trigger()
        answered = asyncio.Event()

        async def cancel(run: Any = run, answered: asyncio.Event = answered) -> None:
            await flows[1].store.write(cancel_run, "d", run.run_id, actor="key:test")
            answered.set()

        async def start(one: Admitted, answered: asyncio.Event = answered) -> tuple[bool, bool]:
            before = answered.is_set()
            return before, isinstance(await flow.start(one.attempt_id), Started)

        results = await asyncio.gather(*(start(one) for one in admitted), cancel())
        late = [await flow.start(one.attempt_id) for one in admitted]
        started = [one for result, one in zip(results[:-1], admitted, strict=True) if result is not None and result[1]]
        assert [isinstance(answer, Started) for answer in late] == [one in started for one in admitted]
        for one in started:
            await flow.end(one.attempt_id, Ended.CANCELLED)
        assert (await flow.run(run)).state == "cancelled"
        await flow.check()


async def test_the_schema_itself_refuses_a_second_active_attempt(flows: list[Flow]) -> None:
    flow = flows[0]
    await flow.put({"a": {}})
    run, [one] = await flow.trigger()

    def second(tx: Tx) -> None:
        row = tx.conn.execute(attempts.select()).one()._asdict()
        row |= {"id": new_id(flow.clock, SeededEntropy(9)), "try_number": 2}
        tx.conn.execute(insert(attempts).inline(), row)

    with pytest.raises(IntegrityError):
        await flow.store.write(second)
    assert one.labels["run_id"] == run.run_id


async def test_the_schema_itself_refuses_a_negative_use(flows: list[Flow]) -> None:
    def lower(tx: Tx) -> None:
        tx.conn.execute(update(limits).values(used=limits.c.used - 100))

    with pytest.raises(IntegrityError):
        await flows[0].store.write(lower)


async def test_many_schedulers_finish_many_runs_without_losing_or_doubling(flows: list[Flow]) -> None:
    flow = flows[0]
    diamond = {"a": {}, "b": {"depends_on": ["a"]}, "c": {"depends_on": ["a"]}, "d": {"depends_on": ["b", "c"]}}
    await flow.put(diamond, max_active_tasks=5, max_active_runs=4)
    runs = [await flow.create() for _ in range(12)]

    async def scheduler(me: Flow) -> list[str]:
        done: list[str] = []
        idle = 0
        while idle < 40:
            before = len(done)
            for number in await me.store.read(work.startable_runs, me.clock.now()):
                await me.store.write(start_run, number, "local", [me.outlet])
            await me.admit()
            for one in await me.store.read(work.placed, [me.agent]):
                if isinstance(await me.start(one.id), Started):
                    noted = await me.end(one.id)
                    assert noted.accepted
                    done.append(one.id)
            idle = idle + 1 if len(done) == before else 0
            if {(await me.run(run)).state for run in runs} == {"success"}:
                break
        return done

    ends = await asyncio.gather(*(scheduler(one) for one in flows))
    assert {(await flow.run(run)).state for run in runs} == {"success"}
    assert len({attempt for batch in ends for attempt in batch}) == 48
    assert sum(len(batch) for batch in ends) == 48
    assert set((await flow.used()).values()) == {0}


async def test_an_agent_whose_lease_ran_out_is_given_up_and_one_that_came_back_is_not(flows: list[Flow]) -> None:
    flow = flows[0]
    hour = timedelta(hours=1)
    executors = [{"name": "local", "slots": 3, "placed": True, "status": "ok", "detail": ""}]
    await flow.store.write(register_agent, flow.agent, host="h", executors=executors, lease=hour)
    await flow.put({"a": {}})
    run, [one] = await flow.trigger()
    await flow.start(one.attempt_id)
    end = End(attempt_id=one.attempt_id, ended=Ended.LOST, cause="worker_lost")
    assert await flow.store.write(expired_agents, hour) == []
    assert not (await flow.store.write(end_attempt, end, expired_agent=flow.agent, lease=hour)).accepted

    def expire(tx: Tx) -> None:
        tx.conn.execute(update(agents).where(agents.c.agent_id == flow.agent).values(lease_until=tx.now - hour))

    await flow.store.write(expire)
    assert await flow.store.write(expired_agents, hour) == [flow.agent]
    assert await flow.store.write(beat, flow.agent, "h", hour)
    assert not (await flow.store.write(end_attempt, end, expired_agent=flow.agent, lease=hour)).accepted
    await flow.store.write(expire)
    assert (await flow.store.write(end_attempt, end, [flows[1].outlet], expired_agent=flow.agent, lease=hour)).accepted
    [again] = await flow.store.read(work.placed, [flows[1].agent])
    assert again.labels["try_number"] == "2"
    assert not (await flow.end(one.attempt_id)).accepted
    assert (await flow.states(run))["a"] == "queued"


async def test_admission_of_another_run_does_not_wait_for_whoever_holds_it(flows: list[Flow]) -> None:
    """A command that holds one run takes others with SKIP LOCKED only; waiting could be a deadlock."""
    flow = flows[0]
    await flow.put({"a": {}})
    run = await flow.create()
    await flow.store.write(start_run, run.id, "local", [])
    inside, leave = asyncio.Event(), asyncio.Event()
    engine = flows[1].store._engine  # type: ignore[attr-defined]  # the store of Postgres

    async def hold() -> None:
        async with engine.begin() as conn:
            await conn.execute(text("SELECT id FROM runs FOR UPDATE"))
            inside.set()
            await leave.wait()

    holder = asyncio.create_task(hold())
    await inside.wait()
    assert await flow.store.write(admit_ready, [Outlet("local", flow.agent)]) == []
    leave.set()
    await holder
    assert len(await flow.store.write(admit_ready, [Outlet("local", flow.agent)])) == 1
