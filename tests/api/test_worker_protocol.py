"""The worker protocol: registering, heartbeats with and without a wait, being superseded, leaving."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from metastore.commands.stopping import cancel_run
from metastore.queries import runs, workers
from tests.api.remote import Worker, a_worker, hex_id, offer, record_of, running, secret
from tests.api.service import pointers, until
from worker.protocol import PROTOCOL

if TYPE_CHECKING:
    import httpx

    from tests.api.service import Api


async def cancel(api: Api, attempt_id: str) -> None:
    record = await record_of(api, attempt_id)
    run = await api.store.read(runs.by_id, record.run)
    assert run is not None
    await api.store.write(cancel_run, run.dag_id, run.run_id, actor="key:test")


async def waiting(api: Api, *found: Worker) -> None:
    """Return once all of *found* wait for directives, their leases renewed."""
    listeners = api.app.state.services.heartbeats._directives._listeners

    async def all_there() -> bool:
        return all(worker.worker_id in listeners for worker in found)

    await until(all_there)


async def state_of(api: Api, worker: Worker) -> str:
    found = await api.store.read(workers.worker, api.clock.now(), worker.worker_id)
    assert found is not None
    return found.state


class TestRegistration:
    async def test_a_worker_registers_and_is_told_its_lease(self, both: Api) -> None:
        worker = Worker(both, await both.key("work"))
        answer = await worker.register()
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["worker_id"], told["protocol"], told["lost"]) == (worker.worker_id, PROTOCOL, [])
        # Sooner than anybody takes its attempts away, and with several heartbeats in between.
        assert 0 < 4 * told["heartbeat"] < told["lease"] < both.settings.worker_lease.total_seconds()
        assert (await worker.register()).json()["lost"] == []

    async def test_no_secret_is_stored_as_it_is(self, api: Api) -> None:
        worker, attempt_id = await running(api)
        path = api.store.path  # type: ignore[attr-defined]  # a file: the fixture is on SQLite
        stored = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
        assert worker.worker_id.encode() in stored
        for text in (worker.token, worker.keys[attempt_id]):
            assert text.encode() not in stored

    async def test_another_protocol_is_named_with_both_numbers_whatever_else_it_says(self, api: Api) -> None:
        worker = Worker(api, await api.key("work"))
        for body in (worker.registration(protocol=9), {"protocol": 9, "something": ["else"]}):
            answer = await worker.call("POST", "/workers", worker.key.text, json=body)
            assert (answer.status_code, answer.json()["code"]) == (409, "worker_protocol")
            assert "protocol 9" in answer.json()["detail"]
            assert f"protocol {PROTOCOL}" in answer.json()["detail"]

    async def test_a_key_may_be_for_some_queues_only(self, both: Api) -> None:
        worker = Worker(both, await both.key("work", queues=["gpu", "big"]))
        answer = await worker.register(queues=["gpu", "default"])
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "default" in answer.json()["detail"]
        assert (await worker.register(queues=["gpu"])).status_code == 200

    async def test_a_key_for_some_dags_registers_nobody(self, api: Api) -> None:
        worker = Worker(api, await api.key("work", prefix="sales_"))
        assert (await worker.register()).status_code == 403

    async def test_a_new_process_gives_up_what_the_old_one_ran_but_not_what_it_still_tells(self, both: Api) -> None:
        worker = await a_worker(both)
        lost, ended = await offer(both, dag_id="a"), await offer(both, dag_id="b")
        for attempt_id in (lost, ended):
            assert (await worker.start(attempt_id)).status_code == 200
        old = worker.boot_id
        worker.boot_id = hex_id()
        told = (await worker.register(attempts=[{"attempt_id": ended, "phase": "ended"}])).json()
        assert told["lost"] == [lost]
        assert (await record_of(both, lost)).state == "lost"
        assert (await record_of(both, lost)).cause == "worker_lost"
        assert (await worker.finish(ended, boot_id=old)).json()["accepted"] is True
        assert (await worker.register(attempts=[])).json()["lost"] == []

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"worker_id": "A" * 32}, "/worker_id"),
            ({"worker_id": "../../x"}, "/worker_id"),
            ({"boot_id": "0" * 31}, "/boot_id"),
            ({"token": "short"}, "/token"),
            ({"token": "x" * 31 + "ä"}, "/token"),
            ({"name": "a\0b"}, "/name"),
            ({"name": "x" * 300}, "/name"),
            ({"pid": -1}, "/pid"),
            ({"pid": 2**63}, "/pid"),
            ({"pid": "1"}, "/pid"),
            ({"slots": 0}, "/slots"),
            ({"slots": 10**30}, "/slots"),
            ({"slots": 1.5}, "/slots"),
            ({"slots": True}, "/slots"),
            ({"queues": []}, "/queues"),
            ({"queues": ["a/b"]}, "/queues/0"),
            ({"queues": ["x.DQ"]}, "/queues/0"),
            ({"queues": [None]}, "/queues/0"),
            ({"queues": ["q"] * 101}, "/queues"),
            ({"executor": "a b"}, "/executor"),
            ({"attempts": [{"attempt_id": "x", "phase": "running"}]}, "/attempts/0/attempt_id"),
            ({"attempts": {}}, "/attempts"),
            ({"more": 1}, "/more"),
            ({"host": None}, "/host"),
        ],
    )
    async def test_what_a_worker_says_of_itself_is_checked(self, api: Api, change: dict[str, Any], place: str) -> None:
        worker = Worker(api, await api.key("work"))
        answer = await worker.register(**change)
        assert answer.status_code == 422, answer.text
        assert [pointer for pointer, _ in pointers(answer)] == [place]
        assert worker.token not in answer.text

    async def test_the_id_of_a_services_own_agent_is_not_for_workers(self, api: Api) -> None:
        agent = hex_id()
        api.flow.agent = agent
        await api.flow.slots()
        worker = Worker(api, await api.key("work"), worker_id=agent)
        assert (await worker.register()).status_code == 403


class TestHeartbeats:
    async def test_a_heartbeat_renews_the_lease(self, both: Api) -> None:
        worker = await a_worker(both)

        async def lease() -> Any:
            found = await both.store.read(workers.worker, both.clock.now(), worker.worker_id)
            assert found is not None
            return found.lease_until

        before = await lease()
        told = (await worker.beat()).json()
        assert (told["drain"], told["directives"]) == (False, [])
        assert await lease() > before

    async def test_who_is_not_known_registers_again(self, api: Api) -> None:
        worker = Worker(api, await api.key("work"))
        for answer in (await worker.beat(), await worker.leave()):
            assert (answer.status_code, answer.json()["code"]) == (404, "worker_unknown")

    async def test_a_superseded_process_is_told_to_end(self, both: Api) -> None:
        worker = await a_worker(both)
        old = worker.boot_id
        worker.boot_id = hex_id()
        await worker.register()
        for answer in (await worker.beat(boot_id=old), await worker.leave(old)):
            assert (answer.status_code, answer.json()["code"]) == (410, "worker_superseded")

    async def test_another_workers_token_is_refused(self, both: Api) -> None:
        worker, other = await a_worker(both), await a_worker(both)
        worker.token = other.token
        answer = await worker.beat()
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_credential")
        assert answer.headers["www-authenticate"].startswith("Bearer")

    async def test_a_stop_is_told_once_it_is_asked_for_and_not_again_once_it_is_done(self, both: Api) -> None:
        worker, attempt_id = await running(both)
        await cancel(both, attempt_id)
        told = (await worker.beat(attempts=[{"attempt_id": attempt_id, "phase": "running"}])).json()
        directive = {"attempt_id": attempt_id, "directive": "cancel", "reason": "user", "grace": None}
        assert told["directives"] == [directive]
        doing = {"attempt_id": attempt_id, "phase": "running", "stopping": "user"}
        assert (await worker.beat(attempts=[doing])).json()["directives"] == []

    async def test_a_stop_ends_the_wait_of_the_worker_that_it_concerns_and_of_no_other(self, both: Api) -> None:
        worker, attempt_id = await running(both)
        other = await a_worker(both)
        waits = asyncio.create_task(worker.beat(10))
        others = asyncio.create_task(other.beat(10))
        await waiting(both, worker, other)
        began = time.monotonic()
        await cancel(both, attempt_id)
        told = (await waits).json()
        assert time.monotonic() - began < 5
        assert [one["attempt_id"] for one in told["directives"]] == [attempt_id]
        assert not others.done()
        others.cancel()

    async def test_what_was_told_a_moment_ago_does_not_end_the_next_wait(self, api: Api) -> None:
        """An attempt that ended and whose end is on its way would have its worker ask as fast as it can."""
        worker, attempt_id = await running(api)
        await cancel(api, attempt_id)
        assert len((await worker.beat(5)).json()["directives"]) == 1
        began = time.monotonic()
        told = (await worker.beat(0.5)).json()
        assert time.monotonic() - began >= 0.4
        assert len(told["directives"]) == 1  # said again, at the end
        api.clock.move(timedelta(seconds=api.settings.told_heartbeat))
        began = time.monotonic()
        await worker.beat(8)
        assert time.monotonic() - began < 5

    async def test_a_wait_ends_by_itself_and_is_cut_at_the_heartbeat(self, api: Api) -> None:
        api.start(worker_heartbeat=timedelta(seconds=0.3))
        worker = await a_worker(api)
        began = time.monotonic()
        assert (await worker.beat(20)).status_code == 200
        assert 0.2 < time.monotonic() - began < 10

    async def test_a_second_heartbeat_ends_the_wait_of_the_first(self, api: Api) -> None:
        worker = await a_worker(api)
        first = asyncio.create_task(worker.beat(20))
        await waiting(api, worker)
        second = asyncio.create_task(worker.beat(20))
        assert (await asyncio.wait_for(first, 5)).status_code == 200
        second.cancel()

    async def test_a_service_that_stops_answers_all_who_wait(self, api: Api) -> None:
        from api.app import stop_streams  # noqa: PLC0415  # the one test that stops it

        found = [await a_worker(api), await a_worker(api)]
        waits = [asyncio.create_task(worker.beat(20)) for worker in found]
        await waiting(api, *found)
        stop_streams(api.app)
        for answer in await asyncio.wait_for(asyncio.gather(*waits), 5):
            assert answer.status_code == 200

    @pytest.mark.parametrize("wait", ["-1", "21", "nan", "inf", "x", "1e400", ""])
    async def test_a_wait_has_bounds(self, api: Api, wait: str) -> None:
        worker = await a_worker(api)
        answer = await worker.call(
            "POST", f"/workers/{worker.worker_id}/heartbeat?wait={wait}", worker.token, json={"boot_id": worker.boot_id}
        )
        assert answer.status_code == 422

    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            (b"", 400),
            (b"{", 400),
            (b"\xff", 400),
            (b"[]", 422),
            (b"null", 422),
            (b"{}", 422),
            (b'{"boot_id": null}', 422),
            (b'{"boot_id": "\\ud800"}', 400),
            (b'{"boot_id": ' + b"[" * 100_000, 400),
            (b'{"boot_id": "%s", "draining": 1}' % (b"0" * 32), 422),
            (b'{"boot_id": "%s", "attempts": [1]}' % (b"0" * 32), 422),
            (b'{"boot_id": "%s", "attempts": [{}]}' % (b"0" * 32), 422),
        ],
    )
    async def test_a_body_that_is_none_is_refused(self, api: Api, raw: bytes, status: int) -> None:
        worker = await a_worker(api)
        async with api.client() as client:
            answer = await client.post(
                f"/worker/v1/workers/{worker.worker_id}/heartbeat",
                content=raw,
                headers={"Authorization": f"Bearer {worker.token}", "Content-Type": "application/json"},
            )
        assert answer.status_code == status, answer.text

    async def test_many_at_once_share_a_few_transactions(self, both: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        found = [await a_worker(both) for _ in range(20)]
        found[3].token = secret()
        found[7].boot_id = hex_id()
        written = 0
        write = both.store.write

        async def counted(*args: Any, **options: Any) -> Any:
            nonlocal written
            written += 1
            return await write(*args, **options)

        monkeypatch.setattr(both.store, "write", counted)
        answers = await asyncio.gather(*(worker.beat() for worker in found))
        statuses = [answer.status_code for answer in answers]
        assert statuses[3] == 401
        assert statuses[7] == 410
        assert statuses.count(200) == 18
        assert written <= 5

    async def test_a_metastore_that_is_away_is_no_reason_to_kill(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dag.errors import Unavailable  # noqa: PLC0415  # the one test that needs it

        worker = await a_worker(api)

        async def away(*_: Any, **__: Any) -> Any:
            raise Unavailable("away")

        monkeypatch.setattr(api.store, "write", away)
        answer = await worker.beat()
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert answer.headers["retry-after"] == "1"
        monkeypatch.undo()
        assert (await worker.beat()).status_code == 200


class TestLeaving:
    async def test_who_leaves_or_drains_takes_nothing_more(self, both: Api) -> None:
        worker = await a_worker(both)
        assert await state_of(both, worker) == "live"
        assert (await worker.beat(draining=True)).status_code == 200
        assert await state_of(both, worker) in {"draining", "gone"}
        answer = await worker.leave()
        assert (answer.status_code, answer.content) == (204, b"")
        assert await state_of(both, worker) == "gone"
        assert (await worker.leave()).status_code == 204

    async def test_an_admin_can_drain_a_worker_and_it_hears_of_it_while_it_waits(self, both: Api) -> None:
        worker = await a_worker(both)
        waits = asyncio.create_task(worker.beat(10))
        await waiting(both, worker)
        async with await both.caller("admin") as admin:
            answer = await admin.post(f"/api/v1/workers/{worker.worker_id}/drain", json={})
            assert answer.status_code == 202, answer.text
            missing = await admin.post(f"/api/v1/workers/{hex_id()}/drain", json={})
        began = time.monotonic()
        assert (await waits).json()["drain"] is True
        assert time.monotonic() - began < 5
        assert (await worker.beat()).json()["drain"] is True
        assert missing.status_code == 404
        worker.boot_id = hex_id()
        await worker.register()
        assert (await worker.beat()).json()["drain"] is False


async def test_an_api_without_a_door_says_that_it_takes_no_workers(api: Api) -> None:
    from api.app import create_app  # noqa: PLC0415  # the one test that needs it

    worker = await a_worker(api)
    attempt_id = await offer(api)
    api.app = create_app(store=api.store, clock=api.clock, entropy=api.entropy, settings=api.settings)
    answer: httpx.Response = await worker.start(attempt_id)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
