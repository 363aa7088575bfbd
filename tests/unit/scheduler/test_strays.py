"""What a scheduler does about what was meant for executors that nobody has any more."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
import structlog

from metastore.commands.admission import Outlet
from metastore.commands.agents import register_agent
from metastore.commands.attempts import end_attempt
from metastore.commands.materialise import start_run
from metastore.commands.strays import follow_default
from metastore.queries import strays as queries
from metastore.queries import tasks as task_queries
from scheduler import strays as shell
from scheduler.settings import SchedulerSettings
from scheduler.strays import Strays
from tests.metastore.flow import Flow

if TYPE_CHECKING:
    from executors.base import Executor
    from metastore.records import RunRecord, TaskRecord
    from metastore.store import Store
    from tests.world import FakeClock


class Known:
    """As much of an executor as is looked at."""

    def __init__(self, slots: int | None) -> None:
        self.slots = slots


class Scene(Flow):
    """A scheduler whose default was ``local``, and one that has other executors."""

    def strays(self, **slots: int | None) -> Strays:
        executors = {name: cast("Executor", Known(each)) for name, each in slots.items()}
        return Strays(self.store, executors, self.clock, SchedulerSettings())

    async def offers(self) -> None:
        """Have ``local`` be an executor of queues that a scheduler says it has."""
        one = {"name": "local", "slots": 1, "placed": False, "status": "ok", "detail": ""}
        await self.announce(one)
        self.outlet = Outlet("local", None)

    async def announce(self, *executors: dict[str, Any]) -> None:
        await self.store.write(register_agent, "scheduler:here", host="h", executors=[*executors], lease=None)

    async def task(self, run: RunRecord, task_id: str) -> TaskRecord:
        found = await self.store.read(task_queries.get, run.id, task_id)
        assert found is not None
        return found


@pytest.fixture
def scene(store: Store, clock: FakeClock) -> Scene:
    return Scene(store, clock)


async def test_what_waits_follows_the_default_at_the_first_look(scene: Scene) -> None:
    await scene.slots(1)
    await scene.put({"a": {}, "b": {"depends_on": ["a"]}})
    run, [running] = await scene.trigger()
    await scene.start(running.attempt_id)
    strays = scene.strays(other=1)
    await strays.look()
    assert [(await scene.task(run, name)).executor for name in ("a", "b")] == ["local", "other"]


async def test_what_becomes_ready_later_follows_at_the_next_look(scene: Scene) -> None:
    strays = scene.strays(other=1)
    await strays.look()
    await scene.put({"a": {}})
    run, _ = await scene.trigger()
    await strays.look()
    assert (await scene.task(run, "a")).executor == "other"


async def test_an_offer_is_withdrawn_and_its_task_follows_in_one_look(scene: Scene) -> None:
    await scene.offers()
    await scene.put({"a": {}})
    run, [_] = await scene.trigger()
    await scene.announce()
    await scene.strays(other=1).look()
    task = await scene.task(run, "a")
    assert (task.state, task.executor, task.losses) == ("scheduled", "other", 0)


async def test_a_task_that_names_its_executor_stays_and_the_log_says_so_once(scene: Scene) -> None:
    await scene.put({"a": {"executor": "gone"}, "b": {"executor": "gone"}})
    run, _ = await scene.trigger()
    strays = scene.strays(other=1)
    with structlog.testing.capture_logs() as said:
        for _ in range(3):
            await strays.look()
    assert (await scene.task(run, "a")).executor == "gone"
    assert [(line["log_level"], line["executor"]) for line in said] == [("warning", "gone")]


async def test_an_offer_that_cannot_be_withdrawn_keeps_no_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.offers()
    await scene.put({"a": {}})
    await scene.trigger()
    run = await scene.create()
    await scene.store.write(start_run, run.id, "local", [])
    await scene.announce()
    write = scene.store.write

    async def breaking(command: Any, *args: Any, **kwargs: Any) -> Any:
        if command is end_attempt:
            raise ValueError("broken")
        return await write(command, *args, **kwargs)

    strays = scene.strays(other=1)
    monkeypatch.setattr(scene.store, "write", breaking)
    await strays.look()
    assert (await scene.task(run, "a")).executor == "other"


async def test_what_cannot_follow_yet_is_looked_at_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scheduler was thought to be gone, spoke again between a look and its move, and went later."""
    await scene.put({"a": {}})
    run = await scene.create()
    await scene.store.write(start_run, run.id, "local", [])
    write = scene.store.write

    async def speaking(command: Any, *args: Any, **kwargs: Any) -> Any:
        known = (*args[:2], [*args[2], "local"], *args[3:]) if command is follow_default else args
        return await write(command, *known, **kwargs)

    strays = scene.strays(other=1)
    monkeypatch.setattr(scene.store, "write", speaking)
    await strays.look()
    await strays.look()
    assert (await scene.task(run, "a")).executor == "local"
    monkeypatch.undo()
    await strays.look()
    assert (await scene.task(run, "a")).executor == "other"


async def test_what_stays_hides_nothing_however_much_it_is(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (queries, shell):
        monkeypatch.setattr(module, "PAGE", 2)
    await scene.put({name: {"executor": "gone"} for name in "abcde"}, dag_id="named")
    await scene.trigger(dag_id="named")
    strays = scene.strays(other=1)
    await strays.look()
    await scene.put({"a": {}})
    run = await scene.create()
    await scene.store.write(start_run, run.id, "gone", [])
    for _ in range(4):
        await strays.look()
    assert (await scene.task(run, "a")).executor == "other"
    assert len(strays._staying) == 5


@pytest.mark.postgres
async def test_a_host_whose_clock_is_ahead_takes_nothing_from_who_is_there(
    postgres_store: Store, clock: FakeClock
) -> None:
    """Others are there by the database's clock."""
    scene = Scene(postgres_store, clock)
    await scene.offers()
    await scene.put({"a": {}})
    run, [_] = await scene.trigger()
    clock.jump(timedelta(days=3_650))
    await scene.strays(other=1).look()
    assert (await scene.task(run, "a")).state == "queued"


@pytest.mark.postgres
async def test_after_an_outage_others_have_the_time_to_say_that_they_are_there(
    postgres_store: Store, clock: FakeClock
) -> None:
    scene = Scene(postgres_store, clock)
    await scene.put({"a": {}})
    run = await scene.create()
    await postgres_store.write(start_run, run.id, "local", [])
    strays = scene.strays(other=1)
    strays.hold_off()
    clock.move(timedelta(seconds=89))
    await strays.look()
    assert (await scene.task(run, "a")).executor == "local"
    clock.move(timedelta(seconds=2))
    await strays.look()
    assert (await scene.task(run, "a")).executor == "other"


async def test_an_executor_without_slots_takes_nothing(scene: Scene) -> None:
    await scene.put({"a": {}})
    run, _ = await scene.trigger()
    await scene.strays(other=None, local=0).look()
    assert (await scene.task(run, "a")).executor == "other"


async def test_a_run_that_cannot_be_moved_keeps_no_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.put({"a": {}})
    broken, _ = await scene.trigger()
    run, _ = await scene.trigger()
    strays = scene.strays(other=1)
    write = scene.store.write

    async def breaking(command: Any, *args: Any, **kwargs: Any) -> Any:
        if args[:1] == (broken.id,):
            raise ValueError("broken")
        return await write(command, *args, **kwargs)

    monkeypatch.setattr(scene.store, "write", breaking)
    await strays.look()
    assert (await scene.task(run, "a")).executor == "other"
    monkeypatch.undo()
    await strays.look()
    assert (await scene.task(broken, "a")).executor == "other"
