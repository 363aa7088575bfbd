"""Workers that lie, and strangers who know what anybody may know."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from metastore.commands.agents import register_agent
from metastore.queries import workers
from tests.api.remote import Worker, a_worker, hex_id, record_of, running
from tests.api.service import pointers
from tests.api.test_worker_protocol import cancel, waiting

if TYPE_CHECKING:
    from tests.api.service import Api


async def test_a_key_for_some_queues_takes_no_worker_of_others_away(both: Api) -> None:
    worker, attempt_id = await running(both)
    thief = Worker(both, await both.key("work", queues=["gpu"]), worker_id=worker.worker_id)
    answer = await thief.register(queues=["gpu"])
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "default" in answer.json()["detail"]
    assert (await record_of(both, attempt_id)).state == "running"
    assert (await worker.beat()).status_code == 200

    # It may have gone, and still what it ran is its own until it is given up.
    assert (await worker.leave()).status_code == 204
    assert (await thief.register(queues=["gpu"])).status_code == 403
    assert (await worker.finish(attempt_id)).json()["accepted"] is True
    assert (await thief.register(queues=["gpu"])).status_code == 200


async def test_no_stranger_ends_the_wait_of_a_worker(api: Api) -> None:
    worker, attempt_id = await running(api)
    wait = asyncio.create_task(worker.beat(20))
    await waiting(api, worker)
    stranger = Worker(api, worker.key, worker_id=worker.worker_id)
    for boot_id in (worker.boot_id, hex_id()):
        assert (await stranger.beat(20, boot_id=boot_id)).status_code in (401, 410)
    assert not wait.done()
    await cancel(api, attempt_id)
    directives = (await asyncio.wait_for(wait, 8)).json()["directives"]
    assert [one["attempt_id"] for one in directives] == [attempt_id]


async def test_no_worker_serves_an_executor_that_has_no_queues(both: Api) -> None:
    executors: list[dict[str, Any]] = [
        {"name": "local", "slots": 4, "placed": True, "by_queue": False, "status": "ok", "detail": ""},
        {"name": "dramatiq", "slots": None, "placed": False, "by_queue": True, "status": "ok", "detail": ""},
    ]
    await both.store.write(register_agent, "a" * 32, host="h", executors=executors, lease=None)
    worker = Worker(both, await both.key("work"))
    answer = await worker.register(executor="local")
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "'local'" in answer.json()["detail"]
    assert await both.store.read(workers.executors_by_queue) == {"dramatiq"}
    assert (await worker.register()).status_code == 200


@pytest.mark.parametrize("text", ["\x1b[31m", "a\nb", "a\rb", "\x7f", "\x9b31m"])
@pytest.mark.parametrize("place", ["name", "host", "version"])
async def test_no_terminal_obeys_what_a_worker_calls_itself(api: Api, place: str, text: str) -> None:
    answer = await Worker(api, await api.key("work")).register(**{place: text})
    assert answer.status_code == 422
    assert [pointer for pointer, _ in pointers(answer)] == [f"/{place}"]


async def test_a_second_wait_of_a_worker_ends_its_first_and_no_later_one(api: Api) -> None:
    worker = await a_worker(api)
    first = asyncio.create_task(worker.beat(20))
    await waiting(api, worker)
    second = asyncio.create_task(worker.beat(20))
    assert (await asyncio.wait_for(first, 8)).status_code == 200
    await asyncio.sleep(0.3)
    assert not second.done()
    second.cancel()
