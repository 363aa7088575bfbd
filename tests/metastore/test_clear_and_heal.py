from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from dag.errors import IllegalStep, Invalid, NotFound
from dag.outcomes import Ended
from metastore.commands.attempts import End, end_attempt
from metastore.commands.clear import clear_run
from metastore.commands.heal import quarantine_run, verify_limit, verify_run
from metastore.models.limits import limits
from metastore.models.runs import runs, task_instances
from metastore.queries import attempts as attempt_queries
from metastore.queries import tasks as task_queries
from metastore.queries import work
from tests.metastore.flow import Flow

if TYPE_CHECKING:
    from metastore.records import RunRecord, TaskRecord
    from metastore.store import Store, Tx
    from tests.world import FakeClock

CHAIN: dict[str, Any] = {"a": {}, "b": {"depends_on": ["a"]}, "c": {"depends_on": ["b"]}}


@pytest.fixture
async def flow(store: Store, clock: FakeClock) -> Flow:
    made = Flow(store, clock)
    await made.slots(4)
    return made


async def clear(
    flow: Flow,
    run: RunRecord,
    *task_ids: str,
    only_failed: bool = False,
    downstream: bool = False,
    dry_run: bool = False,
) -> list[TaskRecord]:
    return await flow.store.write(
        clear_run,
        run.dag_id,
        run.run_id,
        task_ids=list(task_ids) or None,
        only_failed=only_failed,
        downstream=downstream,
        dry_run=dry_run,
        actor="key:test",
    )


async def test_clearing_what_failed_runs_it_again_and_keeps_its_attempts(flow: Flow) -> None:
    await flow.put(CHAIN)
    run, admitted = await flow.trigger()
    await flow.finish_all(admitted, fail=frozenset({"b"}))
    touched = await clear(flow, run, only_failed=True)
    assert [row.task_id for row in touched] == ["b", "c"]
    assert (await flow.run(run)).state == "queued"
    assert await flow.states(run) == {"a": "success", "b": "pending", "c": "pending"}
    admitted = await flow.begin(run)
    assert [one.labels["try_number"] for one in admitted] == ["2"]
    assert await flow.finish_all(admitted) == ["b", "c"]
    ended = await flow.run(run)
    assert (ended.state, ended.bad, ended.unfinished) == ("success", 0, 0)
    b = await flow.store.read(task_queries.get, run.id, "b", -1)
    assert b is not None
    history = await flow.store.read(attempt_queries.of_instance, b.id)
    assert sorted((one.try_number, one.state) for one in history) == [(1, "failed"), (2, "success")]
    await flow.check()


async def test_a_dry_run_of_a_clear_touches_nothing(flow: Flow) -> None:
    await flow.put(CHAIN)
    run, admitted = await flow.trigger()
    await flow.finish_all(admitted)
    before = (await flow.run(run), await flow.states(run), await flow.events(run))
    touched = await clear(flow, run, "b", downstream=True, dry_run=True)
    assert [row.task_id for row in touched] == ["b", "c"]
    assert (await flow.run(run), await flow.states(run), await flow.events(run)) == before


async def test_clearing_one_task_leaves_its_downstream_unless_asked(flow: Flow) -> None:
    await flow.put(CHAIN)
    run, admitted = await flow.trigger()
    await flow.finish_all(admitted)
    await clear(flow, run, "b")
    assert await flow.states(run) == {"a": "success", "b": "pending", "c": "success"}
    assert await flow.finish_all(await flow.begin(run)) == ["b"]
    assert (await flow.run(run)).state == "success"
    await flow.check()


async def test_clearing_in_the_middle_of_a_run_recomputes_counters(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {}, "c": {"depends_on": ["a", "b"]}})
    run, [a, b] = await flow.trigger()
    await flow.start(a.attempt_id)
    await flow.start(b.attempt_id)
    await flow.end(a.attempt_id)
    await clear(flow, run, "a")
    noted = await flow.end(b.attempt_id)
    assert (await flow.states(run))["c"] == "pending"
    assert await flow.store.write(verify_run, run.id) is False
    assert await flow.finish_all(list(noted.admitted)) == ["a", "c"]
    assert (await flow.run(run)).state == "success"


async def test_a_run_that_waits_again_starts_nothing_when_more_of_it_is_cleared(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {}}, max_active_runs=1)
    run, admitted = await flow.trigger()
    await flow.finish_all(admitted)
    other, admitted = await flow.trigger()
    await clear(flow, run, "a")
    await clear(flow, run, "b")
    assert (await flow.run(run)).state == "queued"
    assert await flow.admit() == []
    await flow.finish_all(admitted)
    assert (await flow.run(other)).state == "success"
    assert len(await flow.finish_all(await flow.begin(run))) == 2
    assert (await flow.run(run)).state == "success"


async def test_a_cancelled_run_can_be_cleared_and_runs_to_its_end(flow: Flow) -> None:
    await flow.put(CHAIN)
    run, [a] = await flow.trigger()
    await flow.cancel(run)
    assert (await flow.run(run)).state == "cancelled"
    await clear(flow, run, only_failed=True)
    assert await flow.finish_all(await flow.begin(run)) == ["a", "b", "c"]
    ended = await flow.run(run)
    assert (ended.state, ended.reason, ended.cancelled) == ("success", None, 0)
    assert not (await flow.end(a.attempt_id)).accepted


async def test_a_run_that_is_being_cancelled_cannot_be_cleared(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {}, "c": {"depends_on": ["b"]}})
    run, [a, b] = await flow.trigger()
    await flow.start(a.attempt_id)
    await flow.start(b.attempt_id)
    await flow.end(b.attempt_id)
    await flow.cancel(run)
    with pytest.raises(IllegalStep):
        await clear(flow, run, "b")
    assert (await flow.states(run))["b"] == "success"


async def test_a_run_cancelled_before_all_instances_existed_can_be_cleared_whole(flow: Flow) -> None:
    wide: dict[str, Any] = {f"t{number}": {"empty": {}} for number in range(1_500)}
    await flow.put(wide)
    run, _ = await flow.trigger()
    await flow.cancel(run)
    assert len(await flow.states(run)) == 1_000
    await clear(flow, run, only_failed=True)
    await flow.begin(run)
    for _ in range(10):
        if (await flow.run(run)).state == "success":
            break
        await flow.go_on(run)
        await flow.advance(run)
    assert (await flow.run(run)).state == "success"
    assert len(await flow.states(run)) == 1_500


async def test_clearing_names_what_it_does_not_know(flow: Flow) -> None:
    await flow.put(CHAIN)
    run, _ = await flow.trigger()
    with pytest.raises(Invalid) as error:
        await clear(flow, run, "a", "nope")
    assert [problem.pointer for problem in error.value.problems] == ["/task_ids/1"]
    with pytest.raises(NotFound):
        await flow.store.write(
            clear_run, "d", "none", task_ids=None, only_failed=False, downstream=False, dry_run=False, actor="key:test"
        )


async def test_outputs_of_a_cleared_instance_are_gone(flow: Flow) -> None:
    await flow.put({"a": {}})
    run, [a] = await flow.trigger()
    await flow.start(a.attempt_id)
    await flow.end(a.attempt_id, output={"x": 1})
    row = await flow.store.read(task_queries.get, run.id, "a", -1)
    assert row is not None
    assert await flow.store.read(task_queries.output, row.id) == '{"x": 1}'
    await clear(flow, run)
    assert await flow.store.read(task_queries.output, row.id) is None


def spoil(tx: Tx, run: int) -> None:
    tx.conn.execute(update(task_instances).where(task_instances.c.run == run).values(n_success=0))
    tx.conn.execute(update(runs).where(runs.c.id == run).values(unfinished=7))


async def test_wrong_counters_are_found_and_healed_with_an_event(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {}, "c": {"depends_on": ["a", "b"]}})
    run, [a, b] = await flow.trigger()
    await flow.start(a.attempt_id)
    await flow.end(a.attempt_id)
    assert await flow.store.read(work.doubtful_runs, [run.id]) == []
    await flow.store.write(spoil, run.id)
    assert await flow.store.read(work.doubtful_runs, [run.id]) == [run.id]
    assert await flow.store.write(verify_run, run.id)
    assert await flow.store.read(work.doubtful_runs, [run.id]) == []
    assert (await flow.events(run))[-1].kind == "run.healed"
    await flow.start(b.attempt_id)
    [c] = (await flow.end(b.attempt_id)).admitted
    assert await flow.finish_all([c]) == ["c"]
    assert (await flow.run(run)).state == "success"


async def test_a_run_that_nobody_woke_is_woken(flow: Flow) -> None:
    await flow.put(CHAIN)
    run, [a] = await flow.trigger()

    def forget(tx: Tx) -> None:
        tx.conn.execute(update(task_instances).where(task_instances.c.task_id == "b").values(n_success=-1))

    await flow.store.write(forget)
    await flow.start(a.attempt_id)
    assert not (await flow.end(a.attempt_id)).admitted
    assert await flow.store.read(work.doubtful_runs, [run.id]) == [run.id]
    assert await flow.store.write(verify_run, run.id)
    await flow.advance(run)
    assert await flow.finish_all(await flow.admit()) == ["b", "c"]
    assert (await flow.run(run)).state == "success"


async def test_wrong_limits_are_recounted_and_let_go(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {}}, max_active_tasks=1)
    _, [one] = await flow.trigger()

    def wrong(tx: Tx) -> None:
        tx.conn.execute(update(limits).values(used=limits.c.used + 1))

    await flow.store.write(wrong)
    keys = await flow.store.read(work.limit_keys, "", 100)
    doubtful = await flow.store.read(work.doubtful_limits, keys)
    assert doubtful == keys
    for key in doubtful:
        assert await flow.store.write(verify_limit, key)
        assert not await flow.store.write(verify_limit, key)
    await flow.check(healed=True)
    await flow.start(one.attempt_id)
    assert len((await flow.end(one.attempt_id)).admitted) == 1


@pytest.mark.parametrize("by", ["a cancel", "an end", "a loss"])
async def test_what_a_limit_held_back_is_let_go_by_whatever_frees_it(flow: Flow, by: str) -> None:
    await flow.put({"a": {}}, max_active_tasks=1)
    first, [one] = await flow.trigger()
    second, none = await flow.trigger()
    assert none == []
    await flow.start(one.attempt_id)
    end = End(attempt_id=one.attempt_id, ended=Ended.LOST)
    match by:
        case "a cancel":
            await flow.cancel(first)
            await flow.store.write(end_attempt, replace(end, ended=Ended.CANCELLED, boot_id=flow.boot))
        case "an end":
            await flow.store.write(end_attempt, replace(end, ended=Ended.FAILED, boot_id=flow.boot))
        case "a loss":
            await flow.store.write(end_attempt, end, actor="scheduler")
    assert len(await flow.admit()) == 1
    await flow.check()
    assert (await flow.run(second)).state == "running"


async def test_lowering_a_limit_admits_nothing_until_it_drains(flow: Flow) -> None:
    tasks: dict[str, Any] = {f"t{number}": {} for number in range(6)}
    await flow.put(tasks, max_active_tasks=3)
    _, admitted = await flow.trigger()
    assert len(admitted) == 3
    await flow.put(tasks, max_active_tasks=1)
    for one, expected in zip(admitted, (0, 0, 1), strict=True):
        await flow.start(one.attempt_id)
        assert len((await flow.end(one.attempt_id, Ended.SUCCESS)).admitted) == expected
    await flow.check()


async def test_a_quarantined_run_is_left_alone_and_the_others_go_on(flow: Flow) -> None:
    await flow.put({"a": {}})
    bad = await flow.create()
    good = await flow.create()
    await flow.store.write(quarantine_run, bad.id, "ValueError: boom")
    now = flow.clock.now()
    assert await flow.store.read(work.startable_runs, now) == [good.id]
    found = await flow.run(bad)
    assert found.quarantined_until is not None
    assert await flow.store.read(work.startable_runs, found.quarantined_until) == [bad.id, good.id]
    last = (await flow.events(bad))[-1]
    assert (last.kind, last.reason) == ("run.quarantined", "ValueError: boom")
    assert len(await flow.begin(bad)) == 1
    assert (await flow.run(bad)).quarantined_until is None
