"""What was meant for executors that nobody has any more: who has one, what follows the default, what stays."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from dag.outcomes import Ended
from metastore.commands.admission import Admitted, Outlet, admit_ready
from metastore.commands.agents import register_agent
from metastore.commands.attempts import End, end_attempt
from metastore.commands.strays import Followed, find_runs_with_strays, find_strays, follow_default
from metastore.models.agents import agents
from metastore.queries import strays
from metastore.queries import tasks as task_queries
from tests.metastore.flow import Flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metastore.records import RunRecord
    from metastore.store import Store, Tx
    from tests.world import FakeClock

LEASE = timedelta(seconds=90)
NOTHING_MOVED = Followed(0, {})


class Changed(Flow):
    """A scheduler whose default was ``local``, and others beside it."""

    async def announce(self, place: str, name: str, *, slots: int | None = 4, lease: timedelta | None = LEASE) -> None:
        placed = not place.startswith("scheduler:")
        one = {"name": name, "slots": slots, "placed": placed, "by_queue": not placed, "status": "ok", "detail": ""}
        await self.store.write(register_agent, place, host=place, executors=[one], lease=lease if placed else None)

    async def follow(
        self, run: RunRecord, default: str = "other", own: Sequence[str] = ("other",), within: timedelta | None = LEASE
    ) -> Followed:
        return await self.store.write(follow_default, run.id, default, list(own), within)

    async def find(
        self, own: Sequence[str] = ("other",), within: timedelta | None = LEASE, after: int = 0
    ) -> strays.Strays:
        return await self.store.write(find_strays, own, within, after)

    async def runs_with_strays(self, after: int, own: str = "other") -> list[int]:
        return await self.store.write(find_runs_with_strays, [own], LEASE, after)

    async def there(self, within: timedelta | None) -> list[str]:
        # Not by this host's clock: leases are in the database's time.
        return await self.store.write(lambda tx: strays.there(tx.conn, tx.now, ["other"], within))

    async def age(self, by: timedelta) -> None:
        """Have all that was announced be that much older."""

        def older(tx: Tx) -> None:
            for row in tx.conn.execute(select(agents)).all():
                until = None if row.lease_until is None else row.lease_until - by
                times = {"seen_at": row.seen_at - by, "lease_until": until}
                tx.conn.execute(update(agents).where(agents.c.agent_id == row.agent_id).values(times))

        await self.store.write(older)

    async def executors(self, run: RunRecord) -> dict[str, str]:
        rows = await self.store.read(task_queries.page, run.id, limit=100)
        return {row.task_id: row.executor for row in rows}

    async def started(self, tasks: dict[str, Any]) -> tuple[RunRecord, list[Admitted]]:
        await self.put(tasks)
        return await self.trigger()


@pytest.fixture
def flow(store: Store, clock: FakeClock) -> Changed:
    return Changed(store, clock)


TASKS: dict[str, Any] = {
    "a": {},
    "b": {},
    "later": {"depends_on": ["a"]},
    "named": {"depends_on": ["a"], "executor": "local"},
}


async def test_what_has_no_attempt_follows_the_default_and_what_is_named_stays(flow: Changed) -> None:
    await flow.slots(1)
    run, [running] = await flow.started(TASKS)
    await flow.start(running.attempt_id)
    held = running.labels["task_id"]
    (waits,) = {"a", "b"} - {held}
    assert await flow.find(within=None) == strays.Strays([(await _id(flow, run, waits), run.id)], [])

    named = {await _id(flow, run, "named"): "local"}
    assert await flow.follow(run, within=None) == Followed(2, named)

    assert await flow.executors(run) == {held: "local", waits: "other", "later": "other", "named": "local"}
    assert await flow.find(within=None) == strays.Strays([], [])
    moved = (await flow.events(run))[-1]
    assert (moved.kind, moved.data) == ("run.moved", {"from": ["local"], "to": "other", "instances": 2})
    assert await flow.follow(run, within=None) == Followed(0, named)
    assert (await flow.events(run))[-1].kind == "run.moved"
    await flow.check()


async def _id(flow: Changed, run: RunRecord, task_id: str) -> int:
    record = await flow.store.read(task_queries.get, run.id, task_id)
    assert record is not None
    return record.id


async def test_the_slot_of_the_old_executor_is_given_back_when_its_last_attempt_ends(flow: Changed) -> None:
    await flow.slots(1)
    run, [running] = await flow.started({"a": {}, "b": {}})
    await flow.start(running.attempt_id)
    await flow.follow(run, within=None)
    await flow.announce(flow.agent, "other", slots=1, lease=None)
    other = Outlet("other", flow.agent)

    [second] = await flow.store.write(admit_ready, [other])
    end = End(attempt_id=running.attempt_id, ended=Ended.SUCCESS, boot_id=flow.boot)
    await flow.store.write(end_attempt, end, [other])

    used = await flow.used()
    assert (used[f"slots:local@{flow.agent}"], used[f"slots:other@{flow.agent}"]) == (0, 1)
    await flow.start(second.attempt_id)
    end = End(attempt_id=second.attempt_id, ended=Ended.SUCCESS, boot_id=flow.boot)
    await flow.store.write(end_attempt, end, [other])
    assert not any((await flow.used()).values())
    assert (await flow.run(run)).state == "success"
    await flow.check()


async def test_a_lost_attempt_of_the_old_executor_is_found_when_it_is_ready_again(flow: Changed) -> None:
    await flow.slots(1)
    run, [running] = await flow.started({"a": {}})
    await flow.start(running.attempt_id)
    assert await flow.follow(run, within=None) == NOTHING_MOVED
    lost = End(attempt_id=running.attempt_id, ended=Ended.LOST, cause="worker_lost")
    await flow.store.write(end_attempt, lost, [Outlet("other", flow.agent)], actor="scheduler")
    assert [its_run for _, its_run in (await flow.find(within=None)).ready] == [run.id]
    assert await flow.follow(run, within=None) == Followed(1, {})


async def test_two_schedulers_with_different_executors_take_nothing_from_each_other(flow: Changed) -> None:
    await flow.announce("agent-1", "local")
    await flow.announce("agent-2", "other")
    run, _ = await flow.started({"a": {}, "b": {"depends_on": ["a"]}})
    await flow.announce("scheduler:far", "queues", slots=None)
    for own in ("other", "queues"):
        assert await flow.find([own]) == strays.Strays([], [])
        assert await flow.runs_with_strays(0, own) == []
        assert await flow.follow(run, own, [own]) == NOTHING_MOVED
    assert set((await flow.executors(run)).values()) == {"local"}


async def test_an_executor_is_gone_when_the_lease_of_its_scheduler_is_over(flow: Changed) -> None:
    await flow.announce("agent-1", "local")
    run, _ = await flow.started({"a": {}, "b": {"depends_on": ["a"]}})
    await flow.age(LEASE + timedelta(seconds=1))
    await flow.announce("agent-2", "other")
    assert await flow.runs_with_strays(0) == [run.id]
    assert await flow.runs_with_strays(run.id) == []
    assert await flow.follow(run) == Followed(1, {})


async def test_executors_of_queues_are_there_while_their_scheduler_says_so(flow: Changed) -> None:
    await flow.announce("scheduler:far", "local", slots=None)
    await flow.age(LEASE - timedelta(seconds=30))
    assert await flow.there(LEASE) == ["local", "other"]
    await flow.age(timedelta(seconds=30))
    assert await flow.there(LEASE) == ["other"]


async def test_who_only_looks_after_what_is_left_has_its_executor_no_more(flow: Changed) -> None:
    await flow.announce("agent-1", "local", slots=0)
    assert await flow.there(LEASE) == ["other"]


async def test_rows_of_earlier_services_prove_nothing_where_there_is_one(flow: Changed) -> None:
    await flow.announce("agent-1", "local", lease=None)
    await flow.announce("scheduler:here", "queues", slots=None)
    assert await flow.there(None) == ["other"]


async def test_an_offer_that_nobody_looks_after_is_put_back_at_no_cost(flow: Changed) -> None:
    # Queued for nobody in particular, as offers are.
    flow.outlet = Outlet("local", None)
    one = {"name": "local", "slots": 1, "placed": False, "status": "ok", "detail": ""}
    await flow.store.write(register_agent, "scheduler:here", host="h", executors=[one], lease=None)
    run, [offer] = await flow.started({"a": {}})
    assert await flow.find(["local"], None) == strays.Strays([], [])
    assert (await flow.find(within=None)).offers == [offer.attempt_id]

    end = End(attempt_id=offer.attempt_id, ended=Ended.DRAINED, cause="drained")
    assert (await flow.store.write(end_attempt, end, actor="scheduler")).accepted
    assert (await flow.find(within=None)).offers == []
    assert await flow.follow(run, within=None) == Followed(1, {})
    record = await flow.store.read(task_queries.get, run.id, "a")
    assert record is not None
    assert (record.state, record.executor, record.losses, record.failures) == ("scheduled", "other", 0, 0)
    await flow.check()


async def test_what_is_ready_is_looked_at_in_parts(flow: Changed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very much that stays where it is, the first ones would hide all others."""
    monkeypatch.setattr(strays, "PAGE", 2)
    monkeypatch.setattr(strays, "_READY_OF", strays._READY_OF.limit(2))
    await flow.started({"a": {"executor": "x"}, "b": {}, "c": {"executor": "x"}, "d": {}})
    found, after = [], 0
    for _ in range(3):
        part = (await flow.find(within=None, after=after)).ready
        found += part
        after = found[-1][0]
    assert len(part) == 0
    assert [instance for instance, _ in found] == sorted({instance for instance, _ in found})
    assert len(found) == 4


async def test_what_is_stopped_follows_nobody(flow: Changed) -> None:
    run, _ = await flow.started({"a": {}, "b": {"depends_on": ["a"]}})
    await flow.cancel(run)
    assert await flow.follow(run, within=None) == NOTHING_MOVED
    assert await flow.store.write(follow_default, 10_000, "other", ["other"], None) == NOTHING_MOVED


async def test_a_run_whose_tasks_name_an_executor_that_is_gone_can_be_cancelled(flow: Changed) -> None:
    run, _ = await flow.started({"a": {"executor": "local"}})
    assert await flow.follow(run, within=None) == Followed(0, {await _id(flow, run, "a"): "local"})
    await flow.cancel(run)
    assert (await flow.run(run)).state == "cancelled"
