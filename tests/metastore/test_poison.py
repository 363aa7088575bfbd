"""One bad row, spec or message is set aside; the rest goes on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from dag.outcomes import Ended
from metastore.commands.admission import Outlet
from metastore.commands.attempts import End, NotStarted, end_attempt
from metastore.queries import tasks as task_queries
from metastore.queries import work
from scheduler.door import MetastoreDoor
from scheduler.metrics import SchedulerMetrics
from tests.metastore.flow import Flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metastore.commands.admission import Admitted
    from metastore.records import RunRecord
    from metastore.store import Store
    from tests.world import FakeClock
    from worker.protocol import Finish

DEEP = "[" * 20_000 + "]" * 20_000


@pytest.fixture
async def flow(store: Store, clock: FakeClock) -> Flow:
    made = Flow(store, clock)
    await made.slots(4)
    return made


async def end_raw(flow: Flow, attempt_id: str, output: str, **more: Any) -> Sequence[Admitted]:
    end = End(attempt_id=attempt_id, ended=Ended.SUCCESS, boot_id=flow.boot, output=output, **more)
    noted = await flow.store.write(end_attempt, end, [Outlet("local", flow.agent, flow.boot)])
    assert noted.accepted
    return noted.admitted


async def error_of(flow: Flow, run: RunRecord, task_id: str) -> str:
    row = await flow.store.read(task_queries.get, run.id, task_id, -1)
    assert row is not None
    return row.error or ""


async def test_an_output_that_cannot_be_read_ends_who_asks_for_it_and_nobody_else(flow: Flow) -> None:
    await flow.put(
        {"a": {}, "c": {"depends_on": ["a"], "env": {"X": "${outputs.a}"}, "priority_weight": 9}}, dag_id="bad"
    )
    await flow.put({"x": {}, "y": {"depends_on": ["x"]}}, dag_id="good")
    bad, [a] = await flow.trigger(dag_id="bad")
    good, [x] = await flow.trigger(dag_id="good")
    await flow.start(a.attempt_id)
    await flow.start(x.attempt_id)
    [c] = await end_raw(flow, a.attempt_id, DEEP)
    assert c.body is None
    assert len((await flow.end(x.attempt_id, more=True)).admitted) == 1
    refused = await flow.start(c.attempt_id)
    assert isinstance(refused, NotStarted)
    assert refused.code == "failed"
    assert (await flow.states(bad))["c"] == "failed"
    assert (await flow.states(good))["y"] == "running"
    await flow.check()


async def test_references_that_would_put_in_gigabytes_fail_their_task_with_the_way_out(flow: Flow) -> None:
    many: dict[str, Any] = {"python": {"call": "m:f", "args": ["${outputs.a}"] * 80}, "depends_on": ["a"]}
    text: dict[str, Any] = {"env": {"X": "${outputs.a}" * 400}, "depends_on": ["a"]}
    await flow.put({"a": {}, "many": many, "text": text})
    run, [a] = await flow.trigger()
    await flow.start(a.attempt_id)
    admitted = await end_raw(flow, a.attempt_id, '"' + "x" * 1_000_000 + '"')
    assert [one.body for one in admitted] == [None, None]
    for one in admitted:
        assert isinstance(await flow.start(one.attempt_id), NotStarted)
    assert "8,388,608" in await error_of(flow, run, "many")
    assert "pass the place" in await error_of(flow, run, "text")
    assert (await flow.run(run)).state == "failed"


async def test_an_error_line_that_no_database_takes_is_written_so_that_it_does(flow: Flow) -> None:
    await flow.put({"a": {}})
    run, [a] = await flow.trigger()
    await flow.start(a.attempt_id)
    end = End(attempt_id=a.attempt_id, ended=Ended.FAILED, boot_id=flow.boot, error="a\0b \ud800 \x1b[31m")
    assert (await flow.store.write(end_attempt, end)).accepted
    assert await error_of(flow, run, "a") == "a\\x00b \\ud800 \\x1b[31m"


class Broken(Outlet):
    """An outlet whose admission goes wrong."""

    @property
    def slots_key(self) -> str:
        raise RuntimeError("boom")


def finish_of(flow: Flow, attempt_id: str, output: str | None = None) -> Finish:
    return {
        "type": "finish",
        "attempt_id": attempt_id,
        "boot_id": flow.boot,
        "outcome": "success",
        "exit_code": 0,
        "signal": None,
        "error": "",
        "output": output,
        "log_size": 0,
        "log_dropped": 0,
        "started_at": 0.0,
        "ended_at": 0.0,
        "more": False,
    }


LEASE = timedelta(seconds=90)


def nobody(_: Sequence[Admitted]) -> None:
    return None


async def test_an_end_is_noted_whatever_the_admission_beside_it_does(flow: Flow) -> None:
    await flow.put({"a": {}})
    run, [a] = await flow.trigger()
    await flow.start(a.attempt_id)
    metrics = SchedulerMetrics(CollectorRegistry())
    door = MetastoreDoor(flow.store, lambda: [Broken("local", flow.agent)], nobody, metrics, lease=LEASE)
    [answer] = await door.finish(finish_of(flow, a.attempt_id), flow.agent)
    assert answer == {"type": "finished", "attempt_id": a.attempt_id, "accepted": True}
    assert (await flow.run(run)).state == "success"


@pytest.mark.postgres
async def test_an_output_that_the_database_refuses_fails_its_task_and_frees_its_slot(
    postgres_store: Store, clock: FakeClock
) -> None:
    flow = Flow(postgres_store, clock)
    await flow.slots()
    await flow.put({"a": {}})
    run, [a] = await flow.trigger()
    await flow.start(a.attempt_id)
    metrics = SchedulerMetrics(CollectorRegistry())
    door = MetastoreDoor(postgres_store, lambda: [flow.outlet], nobody, metrics, lease=LEASE)
    await door.finish(finish_of(flow, a.attempt_id, output='"\0"'), flow.agent)
    assert await flow.states(run) == {"a": "failed"}
    assert await error_of(flow, run, "a") == "its output could not be stored"
    assert set((await flow.used()).values()) == {0}


async def test_triggers_beside_puts_are_all_accepted(flow: Flow) -> None:
    await flow.put({"a": {}})

    async def put(number: int) -> None:
        await flow.put({"a": {"env": {"N": str(number)}}})

    jobs = [put(number) for number in range(20)] + [flow.create() for _ in range(60)]
    jobs.sort(key=lambda job: hash(id(job)))
    await asyncio.gather(*jobs)


async def test_a_free_slot_beside_ready_instances_is_seen(flow: Flow) -> None:
    slots = [("local", flow.outlet.slots_key)]
    await flow.put({f"t{number}": {} for number in range(5)})
    run = await flow.create()
    assert not await flow.store.read(work.idle_beside_ready, slots)
    other = Flow(flow.store, flow.clock, agent="full")
    await other.slots(0)
    await other.begin(run)
    assert await flow.store.read(work.idle_beside_ready, slots)
    assert len(await flow.admit()) == 4
    assert not await flow.store.read(work.idle_beside_ready, slots)
