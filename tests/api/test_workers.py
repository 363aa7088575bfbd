"""Workers and queues as operators see them: lists, executors, why a task waits, measures, keys for workers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from metastore.commands.agents import register_agent
from tests.api.remote import QUEUE, TASK, a_worker, hex_id, offer, running
from tests.api.service import pointers
from tests.metastore.flow import Flow

if TYPE_CHECKING:
    import httpx

    from tests.api.service import Api


async def ready(api: Api, tasks: dict[str, Any] | None = None, dag_id: str = "dice") -> str:
    """Make the tasks of a new run ready; return the path of the run."""
    await api.put(dag_id, {"tasks": tasks or {"roll": TASK}})
    flow = Flow(api.store, api.clock)
    flow.outlet = QUEUE
    run = await flow.create(dag_id=dag_id, run_id="waits")
    await flow.begin(run)
    return f"/api/v1/dags/{dag_id}/runs/waits"


async def announce(api: Api) -> None:
    """Do as a scheduler does that has the executor."""
    one = {"name": "dramatiq", "slots": None, "placed": False, "by_queue": True, "status": "ok", "detail": "fine"}
    await api.store.write(register_agent, "scheduler:here", host="here", executors=[one], lease=None)


async def measures(reader: httpx.AsyncClient) -> dict[str, float]:
    text = (await reader.get("/metrics")).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


class TestWorkers:
    async def test_they_are_listed_with_what_they_serve_and_run(self, both: Api) -> None:
        worker, attempt_id = await running(both)
        other = await a_worker(both, queues=["gpu", "big"], slots=2, name="g")
        async with await both.caller("read") as reader:
            items = (await reader.get("/api/v1/workers")).json()["items"]
            assert [one["worker_id"] for one in items] == sorted([worker.worker_id, other.worker_id])
            one = (await reader.get(f"/api/v1/workers/{worker.worker_id}")).json()
            two = (await reader.get(f"/api/v1/workers/{other.worker_id}")).json()
            assert (await reader.get(f"/api/v1/workers/{hex_id()}")).status_code == 404
        assert (one["state"], one["running"], one["free"], one["attempts"]) == ("live", 1, 3, [attempt_id])
        assert (two["name"], two["queues"], two["slots"], two["free"], two["attempts"]) == (
            "g",
            ["gpu", "big"],
            2,
            2,
            [],
        )
        assert one in items
        assert two in items
        assert worker.token not in str(items)

    async def test_their_pages_are_bounded(self, both: Api) -> None:
        found = sorted([(await a_worker(both)).worker_id for _ in range(5)])
        async with await both.caller("read") as reader:
            seen, query = [], "?limit=2"
            for _ in range(3):
                page = (await reader.get(f"/api/v1/workers{query}")).json()
                seen += [one["worker_id"] for one in page["items"]]
                query = f"?limit=2&cursor={page['next_cursor']}"
        assert seen == found
        assert page["next_cursor"] is None

    async def test_a_key_for_some_dags_does_not_see_what_they_run(self, api: Api) -> None:
        worker, attempt_id = await running(api)
        async with await api.caller("read", prefix="sales_") as reader:
            for path in ("", f"/{worker.worker_id}"):
                assert attempt_id not in (await reader.get(f"/api/v1/workers{path}")).text
            assert "default" not in (await reader.get("/api/v1/executors")).text.replace('"default":', "")

    async def test_one_that_is_silent_is_lost(self, api: Api) -> None:
        worker = await a_worker(api)
        api.clock.move(api.settings.worker_lease + timedelta(seconds=1))
        async with await api.caller("read") as reader:
            found = (await reader.get(f"/api/v1/workers/{worker.worker_id}")).json()
            assert (found["state"], found["free"]) == ("lost", 0)
            assert (await measures(reader))['runyard_workers{executor="dramatiq",state="lost"}'] == 1


class TestWaiting:
    async def test_a_task_says_that_nobody_serves_its_queue(self, both: Api) -> None:
        await announce(both)
        path = await ready(both, {"roll": TASK | {"queue": "gpu"}, "after": TASK | {"depends_on": ["roll"]}})
        async with await both.caller("read") as reader:
            task = (await reader.get(f"{path}/tasks/roll")).json()
            assert (task["state"], task["reason"], task["queue"]) == ("scheduled", "no_worker", "gpu")
            assert "'gpu'" in task["detail"]
            assert "'dramatiq'" in task["detail"]
            listed = {one["task_id"]: one for one in (await reader.get(f"{path}/tasks")).json()["items"]}
            assert listed["roll"]["reason"] == "no_worker"
            assert (listed["after"]["reason"], listed["after"]["detail"]) == (None, None)
            await a_worker(both, queues=["default"])
            assert (await reader.get(f"{path}/tasks/roll")).json()["reason"] == "no_worker"
            await a_worker(both, queues=["gpu"])
            task = (await reader.get(f"{path}/tasks/roll")).json()
            assert (task["reason"], task["detail"]) == (None, None)

    async def test_a_task_says_that_no_scheduler_has_its_executor(self, both: Api) -> None:
        await announce(both)
        path = await ready(both, {"roll": TASK | {"executor": "dramatiq"}})
        # As after a restart with other executors.
        both.start(executors=("local",))
        local = {"name": "local", "slots": 4, "placed": False, "by_queue": False, "status": "ok", "detail": ""}
        await both.store.write(register_agent, "scheduler:here", host="here", executors=[local], lease=None)
        async with await both.caller("read") as reader:
            task = (await reader.get(f"{path}/tasks/roll")).json()
            assert (task["state"], task["reason"]) == ("scheduled", "no_executor")
            assert "'dramatiq'" in task["detail"]
            (listed,) = (await reader.get(f"{path}/tasks")).json()["items"]
            assert listed["reason"] == "no_executor"
        async with await both.caller("trigger", "read") as caller:
            assert (await caller.post(f"{path}/cancel", json={})).is_success
            assert (await caller.get(path)).json()["state"] == "cancelled"

    async def test_a_task_says_that_all_slots_of_its_queue_are_taken(self, both: Api) -> None:
        await a_worker(both, slots=1)  # and one ahead
        path = await ready(both, dict.fromkeys("abc", TASK))
        async with await both.caller("read") as reader:
            found = [one["reason"] for one in (await reader.get(f"{path}/tasks")).json()["items"]]
        assert sorted(map(str, found)) == ["None", "None", "queue_full"]

    async def test_a_task_of_another_executor_says_nothing_of_queues(self, api: Api) -> None:
        await announce(api)
        path = await ready(api, {"roll": {"command": ["true"], "executor": "local"}})
        async with await api.caller("read") as reader:
            assert (await reader.get(f"{path}/tasks/roll")).json()["reason"] is None

    async def test_a_task_says_which_worker_has_it(self, both: Api) -> None:
        worker, attempt_id = await running(both, run_id="r")
        async with await both.caller("read") as reader:
            task = (await reader.get("/api/v1/dags/dice/runs/r/tasks/roll")).json()
            (attempt,) = (await reader.get("/api/v1/dags/dice/runs/r/tasks/roll/attempts")).json()["items"]
        assert (task["worker_id"], task["queue"]) == (worker.worker_id, "default")
        assert (attempt["attempt_id"], attempt["placed_on"], attempt["queue"]) == (
            attempt_id,
            worker.worker_id,
            "default",
        )


class TestQueues:
    async def test_executors_have_capacity_and_queues(self, both: Api) -> None:
        await announce(both)
        await running(both)
        await a_worker(both, queues=["default", "gpu"], slots=3)
        await offer(both, dag_id="more")
        await ready(both, {"roll": TASK | {"queue": "nobody"}}, dag_id="waits")
        async with await both.caller("read") as reader:
            items = (await reader.get("/api/v1/executors")).json()["items"]
            found = {one["name"]: one for one in items}["dramatiq"]
            values = await measures(reader)
        assert (found["status"], found["detail"], found["capacity"]) == ("ok", "fine", 7)
        queues = {one["queue"]: one for one in found["queues"]}
        assert {name: (one["workers"], one["slots"]) for name, one in queues.items()} == {
            "default": (2, 7),
            "gpu": (1, 3),
            "nobody": (0, 0),
        }
        assert (queues["default"]["running"], queues["default"]["queued"], queues["default"]["ready"]) == (1, 1, 0)
        assert queues["nobody"]["ready"] == 1
        assert queues["nobody"]["oldest_ready_at"] is not None
        for name, value in {
            'runyard_queue_ready_tasks{executor="dramatiq",queue="nobody"}': 1,
            'runyard_queue_running_attempts{executor="dramatiq",queue="default"}': 1,
            'runyard_queue_queued_attempts{executor="dramatiq",queue="default"}': 1,
            'runyard_queue_workers{executor="dramatiq",queue="default"}': 2,
            'runyard_queue_slots{executor="dramatiq",queue="gpu"}': 3,
            'runyard_workers{executor="dramatiq",state="live"}': 2,
            'runyard_worker_slots{executor="dramatiq"}': 7,
            'runyard_worker_running_attempts{executor="dramatiq"}': 1,
            'runyard_worker_registrations_total{executor="dramatiq"}': 2,
        }.items():
            assert values[name] == value, name

    async def test_heartbeats_are_measured_and_the_series_of_queues_have_a_bound(self, api: Api) -> None:
        for number in range(3):
            worker = await a_worker(api, queues=[f"q{number}_{one}" for one in range(100)])
        await worker.beat()
        async with await api.caller("read") as reader:
            values = await measures(reader)
        assert values['runyard_worker_heartbeat_seconds_count{of="worker"}'] == 1
        series = [name for name in values if name.startswith("runyard_queue_workers{")]
        assert len(series) == 201
        assert values['runyard_queue_workers{executor="dramatiq",queue="other"}'] == 100

    async def test_an_executor_that_nobody_configured_has_no_series_of_its_own(self, api: Api) -> None:
        for number in range(3):
            await a_worker(api, executor=f"made_up_{number}")
        async with await api.caller("read") as reader:
            values = await measures(reader)
        assert values['runyard_worker_registrations_total{executor="other"}'] == 3


class TestKeys:
    async def test_a_key_for_workers_may_name_its_queues(self, both: Api) -> None:
        async with await both.caller("admin") as admin:
            made = await admin.post("/api/v1/keys", json={"name": "w", "scopes": ["work"], "queues": ["gpu"]})
            assert made.status_code == 201, made.text
            assert made.json()["queues"] == ["gpu"]
            shown = (await admin.get(made.headers["location"])).json()
            assert (shown["scopes"], shown["queues"]) == (["work"], ["gpu"])

    @pytest.mark.parametrize(
        ("body", "place"),
        [
            ({"scopes": ["work"], "dag_prefix": "a"}, ("", "work_prefix")),
            ({"scopes": ["read"], "queues": ["gpu"]}, ("", "queues_without_work")),
            ({"scopes": ["work"], "queues": []}, ("/queues", "too_short")),
            ({"scopes": ["work"], "queues": ["a b"]}, ("/queues/0", "bad_queue")),
        ],
    )
    async def test_what_is_wrong_with_it_has_its_place(
        self, admin: httpx.AsyncClient, body: dict[str, Any], place: tuple[str, str]
    ) -> None:
        answer = await admin.post("/api/v1/keys", json={"name": "w"} | body)
        assert (answer.status_code, pointers(answer)) == (422, [place])

    async def test_a_key_that_was_revoked_registers_nobody(self, api: Api) -> None:
        worker = await a_worker(api)
        async with await api.caller("admin") as admin:
            await admin.delete(f"/api/v1/keys/{worker.key.key_id}")
        api.clock.move(timedelta(seconds=1))
        assert (await worker.register()).status_code == 401
