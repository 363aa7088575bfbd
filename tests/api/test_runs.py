"""Runs over HTTP: trigger, wait, list, cancel, clear."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from metastore.queries import runs
from tests.api.service import DICE, SOON, ids, pointers, until

if TYPE_CHECKING:
    import httpx

    from metastore.records import RunRecord
    from tests.api.service import Api

RUNS = "/api/v1/dags/dice/runs"


@pytest.fixture
async def dice(api: Api) -> Api:
    await api.put("dice")
    return api


async def record(api: Api, run_id: str) -> RunRecord:
    found = await api.store.read(runs.get, "dice", run_id)
    assert found is not None
    return found


async def accepted(api: Api, run_id: str) -> RunRecord:
    """Return the run once it is there."""
    found = await until(lambda: api.store.read(runs.get, "dice", run_id))
    assert found is not None
    return found


async def test_a_trigger_answers_with_the_durable_run(both: Api) -> None:
    await both.put("dice")
    async with await both.caller("trigger") as operator, await both.caller("read") as reader:
        body = {"params": {"sides": 20}, "run_id": "monday", "labels": {"team": "data"}, "note": "try"}
        answer = await operator.post(RUNS, json=body)
        assert (answer.status_code, answer.headers["location"]) == (201, f"{RUNS}/monday")
        run = answer.json()
        key_id = operator.headers["authorization"].split("_")[1]
        moment = run["queued_at"]
        assert run == {
            "dag_id": "dice",
            "run_id": "monday",
            "run_type": "manual",
            "state": "queued",
            "reason": None,
            "version": 1,
            "params": {"sides": 20},
            "labels": {"team": "data"},
            "note": "try",
            "logical_date": moment,
            "data_interval_start": moment,
            "data_interval_end": moment,
            "run_after": moment,
            "queued_at": moment,
            "started_at": None,
            "ended_at": None,
            "duration": None,
            "created_by": f"key:{key_id}",
            "warnings": [],
        }
        del run["warnings"]
        assert (await reader.get(f"{RUNS}/monday")).json() == run


async def test_a_run_without_a_name_gets_one_that_says_when(dice: Api, admin: httpx.AsyncClient) -> None:
    one, two = [(await admin.post(RUNS, json={})).json() for _ in range(2)]
    assert one["run_id"].startswith(f"manual__{dice.clock.now():%Y-%m-%dT%H:}")
    assert one["run_id"] != two["run_id"]
    assert one["params"] == {"sides": 6}


async def test_a_taken_name_says_the_way_out(dice: Api, admin: httpx.AsyncClient) -> None:
    assert dice
    await admin.post(RUNS, json={"run_id": "r"})
    answer = await admin.post(RUNS, json={"run_id": "r"})
    assert (answer.status_code, answer.json()["code"]) == (409, "already_exists")
    assert "Idempotency-Key" in answer.json()["hint"]


async def test_what_may_surprise_is_said(dice: Api, admin: httpx.AsyncClient) -> None:
    await admin.patch("/api/v1/dags/dice", json={"paused": True})
    later = (dice.clock.now() + timedelta(hours=1)).isoformat()
    run = (await admin.post(RUNS, json={"run_after": later})).json()
    assert run["warnings"] == ["dag_paused", "run_after_in_future"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"params": {"sides": 1}}, "/params/sides"),
        ({"params": {"size": 1}}, "/params/size"),
        ({"params": {"sides": "6"}}, "/params/sides"),
        ({"params": []}, "/params"),
        ({"param": {}}, "/param"),
        ({"executor": "local"}, "/executor"),
        ({"run_id": "a b"}, "/run_id"),
        ({"run_id": ".."}, "/run_id"),
        ({"run_id": ""}, "/run_id"),
        ({"run_id": 5}, "/run_id"),
        ({"run_id": "a\n"}, "/run_id"),
        ({"logical_date": "yesterday"}, "/logical_date"),
        ({"logical_date": "2026-01-01T00:00:00"}, "/logical_date"),
        ({"logical_date": 1_700_000_000}, "/logical_date"),
        ({"logical_date": "0001-01-01T00:00:00+14:00"}, "/logical_date"),
        ({"run_after": "9999-12-31T23:59:59-14:00"}, "/run_after"),
        ({"labels": {"a": 1}}, "/labels/a"),
        ({"labels": {"a b": "c"}}, "/labels/a b"),
        ({"labels": {f"l{n}": "x" for n in range(65)}}, "/labels"),
        ({"labels": {"a": "x" * 256}}, "/labels/a"),
        ({"note": 1}, "/note"),
        ({"note": "x" * 10_001}, "/note"),
        ({"note": "a\0b"}, "/note"),
        ({"note": "\ud800"}, "/note"),
        ({"version": 0}, "/version"),
        ({"version": "1"}, "/version"),
        ({"version": True}, "/version"),
        ({"version": 2**40}, "/version"),
    ],
)
async def test_what_is_wrong_with_a_trigger_has_its_place(both: Api, body: dict[str, Any], place: str) -> None:
    await both.put("dice")
    async with await both.caller("admin") as admin:
        # Escaped, so that also what is no text of Unicode gets through.
        raw = json.dumps(body).encode()
        answer = await admin.post(RUNS, content=raw, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text
        assert [pointer for pointer, _ in pointers(answer)] == [place]
        assert (await admin.get(RUNS)).json()["items"] == []


async def test_choosing_a_version_is_for_those_who_define(dice: Api) -> None:
    await dice.put("dice", DICE | {"params": {"type": "object", "properties": {"n": {"type": "integer"}}}})
    async with await dice.caller("trigger") as operator, await dice.caller("trigger", "define") as author:
        refused = await operator.post(RUNS, json={"version": 1})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert "define" in refused.json()["detail"]
        old = (await author.post(RUNS, json={"version": 1, "params": {"sides": 3}})).json()
        assert (old["version"], old["params"]) == (1, {"sides": 3})
        new = (await author.post(RUNS, json={"version": 2, "params": {"n": 3}})).json()
        assert (new["version"], new["params"]) == (2, {"n": 3})
        assert (await author.post(RUNS, json={"version": 3})).status_code == 404


async def test_params_are_checked_against_the_version_that_the_run_is_pinned_to(both: Api) -> None:
    """A replica that remembers the version before neither refuses nor accepts by it."""
    await both.put("dice")
    replica = both.app
    async with await both.caller("admin") as warm:
        assert (await warm.post(RUNS, json={"params": {"sides": 6}})).status_code == 201
        both.start()
        await both.put(
            "dice", DICE | {"params": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}}
        )
        key = await both.key("trigger")
        async with both.client(key, replica) as stale:
            new = await stale.post(RUNS, json={"params": {"n": 2}})
            assert (new.status_code, new.json()["version"], new.json()["params"]) == (201, 2, {"n": 2})
        await both.put("dice", DICE)
        async with both.client(key, replica) as stale:
            refused = await stale.post(RUNS, json={"params": {"n": 2}})
            assert refused.status_code == 422
            filled = await stale.post(RUNS, json={})
            assert (filled.json()["version"], filled.json()["params"]) == (3, {"sides": 6})


async def test_a_dag_that_was_deleted_and_made_again_is_not_the_one_remembered(dice: Api) -> None:
    replica = dice.app
    key = await dice.key("admin")
    async with dice.client(key, replica) as stale, dice.client(key, dice.start()) as fresh:
        run = (await stale.post(RUNS, json={})).json()
        await fresh.post(f"{RUNS}/{run['run_id']}/cancel", json={})
        await fresh.delete("/api/v1/dags/dice")
        assert (await stale.post(RUNS, json={})).status_code == 404
        await fresh.put("/api/v1/dags/dice", json={"tasks": {"a": {"command": ["true"]}}})
        made = await stale.post(RUNS, json={})
        assert (made.status_code, made.json()["version"], made.json()["params"]) == (201, 1, {})


async def test_a_warm_trigger_reads_nothing_and_writes_once(dice: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    read, write = dice.store.read, dice.store.write

    async def counted_read(query: Any, *args: Any, **options: Any) -> Any:
        calls.append("read")
        return await read(query, *args, **options)

    async def counted_write(command: Any, *args: Any, **options: Any) -> Any:
        calls.append("write")
        return await write(command, *args, **options)

    async with await dice.caller("admin") as admin:
        await admin.post(RUNS, json={})
        await asyncio.sleep(0)
        monkeypatch.setattr(dice.store, "read", counted_read)
        monkeypatch.setattr(dice.store, "write", counted_write)
        calls.clear()
        assert (await admin.post(RUNS, json={"params": {"sides": 7}})).status_code == 201
    assert calls == ["write"]


class TestWaiting:
    async def test_the_answer_comes_when_the_run_has_ended(self, both: Api) -> None:
        await both.put("dice")
        await both.flow.slots()
        async with await both.caller("trigger") as operator:
            waiting = asyncio.create_task(operator.post(f"{RUNS}?wait=60", json={"run_id": "r"}))
            run = await accepted(both, "r")
            assert not waiting.done()
            await both.flow.finish_all(await both.flow.begin(run))
            answer = await asyncio.wait_for(waiting, SOON)
        assert (answer.status_code, answer.json()["state"], answer.json()["warnings"]) == (201, "success", [])
        assert answer.json()["duration"] >= 0

    async def test_the_answer_comes_as_it_stands_when_the_time_is_over(
        self, dice: Api, admin: httpx.AsyncClient
    ) -> None:
        assert dice
        answer = await asyncio.wait_for(admin.post(f"{RUNS}?wait=0.2", json={}), SOON)
        assert (answer.status_code, answer.json()["state"]) == (201, "queued")

    async def test_the_answer_comes_as_it_stands_when_the_service_stops(
        self, dice: Api, admin: httpx.AsyncClient
    ) -> None:
        waiting = asyncio.create_task(admin.post(f"{RUNS}?wait=60", json={"run_id": "r"}))
        await accepted(dice, "r")
        dice.app.state.services.streams.stop()
        assert (await asyncio.wait_for(waiting, SOON)).json()["state"] == "queued"

    async def test_going_away_does_not_take_the_run_back(self, dice: Api, admin: httpx.AsyncClient) -> None:
        waiting = asyncio.create_task(admin.post(f"{RUNS}?wait=60", json={"run_id": "r"}))
        await accepted(dice, "r")
        waiting.cancel()
        await asyncio.wait([waiting])
        assert (await record(dice, "r")).state == "queued"

    @pytest.mark.parametrize("wait", ["-1", "301", "nan", "inf", "soon", ""])
    async def test_a_wait_out_of_range_is_refused(self, dice: Api, admin: httpx.AsyncClient, wait: str) -> None:
        assert dice
        answer = await admin.post(f"{RUNS}?wait={wait}", json={})
        assert (answer.status_code, pointers(answer)[0][0]) == (422, "/query/wait")
        assert (await admin.get(RUNS)).json()["items"] == []

    async def test_without_a_free_slot_nothing_is_triggered(self, dice: Api) -> None:
        dice.start(streams_per_key=0)
        async with await dice.caller("admin") as admin:
            answer = await admin.post(f"{RUNS}?wait=5", json={})
            assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (
                429,
                "too_many_streams",
                True,
            )
            assert answer.headers["retry-after"]
            assert (await admin.get(RUNS)).json()["items"] == []


async def test_a_cancelled_run_stays_cancelled_and_an_ended_one_refuses(both: Api) -> None:
    await both.put("dice")
    await both.flow.slots()
    async with await both.caller("admin") as admin:
        await admin.post(RUNS, json={"run_id": "queued"})
        for _ in range(2):
            answer = await admin.post(f"{RUNS}/queued/cancel", json={})
            assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
        await admin.post(RUNS, json={"run_id": "done"})
        await both.flow.finish_all(await both.flow.begin(await record(both, "done")))
        answer = await admin.post(f"{RUNS}/done/cancel", json={})
        assert (answer.status_code, answer.json()["code"]) == (409, "illegal_step")
        assert (await admin.post(f"{RUNS}/nope/cancel", json={})).status_code == 404
        assert (await admin.post(f"{RUNS}/queued/cancel", json={"force": True})).status_code == 422


async def test_a_clear_says_what_it_touches_and_a_dry_run_touches_nothing(both: Api) -> None:
    await both.put("dice")
    await both.flow.slots()
    async with await both.caller("admin") as admin:
        await admin.post(RUNS, json={"run_id": "r"})
        await both.flow.finish_all(await both.flow.begin(await record(both, "r")), fail=frozenset({"report"}))
        assert (await admin.get(f"{RUNS}/r")).json()["state"] == "failed"
        for dry in (True, False):
            answer = await admin.post(f"{RUNS}/r/clear", json={"only_failed": True, "dry_run": dry})
            assert answer.status_code == 200, answer.text
            assert (ids(answer.json()["items"], "task_id"), answer.json()["dry_run"]) == (["report"], dry)
            assert (await admin.get(f"{RUNS}/r")).json()["state"] == ("failed" if dry else "queued")
        answer = await admin.post(f"{RUNS}/r/clear", json={"task_ids": []})
        assert pointers(answer) == [("/task_ids", "too_short")]
        assert (await admin.post(f"{RUNS}/nope/clear", json={})).status_code == 404


async def test_filters_narrow_the_runs_down(both: Api) -> None:
    await both.put("dice")
    await both.put("other")
    async with await both.caller("admin") as admin:
        for number, labels in enumerate([{"team": "a"}, {"team": "b", "day": "x=y"}, {}]):
            await admin.post(RUNS, json={"run_id": f"r{number}", "labels": labels})
            both.clock.move(timedelta(hours=1))
        await admin.post("/api/v1/dags/other/runs", json={"run_id": "o"})
        await admin.post(f"{RUNS}/r2/cancel", json={})
        middle = (await admin.get(f"{RUNS}/r1")).json()["queued_at"]
        for query, expected in [
            ("", ["r2", "r1", "r0"]),
            ("?state=queued", ["r1", "r0"]),
            ("?state=cancelled&state=failed", ["r2"]),
            ("?run_type=manual", ["r2", "r1", "r0"]),
            ("?label=team=b", ["r1"]),
            ("?label=team=b&label=day=x%3Dy", ["r1"]),
            ("?label=team=b&label=day=z", []),
            (f"?queued_at_gte={middle}", ["r2", "r1"]),
            (f"?queued_at_lte={middle}", ["r1", "r0"]),
        ]:
            assert ids((await admin.get(f"{RUNS}{query}")).json()["items"], "run_id") == expected, query
        assert ids((await admin.get("/api/v1/runs")).json()["items"], "run_id") == ["o", "r2", "r1", "r0"]
        for query in (
            "state=done",
            "run_type=cron",
            "label=team",
            "label==x",
            "queued_at_gte=now",
            "queued_at_lte=2026",
            "label=a=%00",
        ):
            answer = await admin.get(f"{RUNS}?{query}")
            assert answer.status_code == 422, query
            assert pointers(answer)[0][0].startswith(f"/query/{query.partition('=')[0]}")


async def test_listing_the_runs_of_no_dag_is_a_404(api: Api, admin: httpx.AsyncClient) -> None:
    assert api
    for path in ("", "/r", "/r/tasks", "/r/tasks/t", "/r/tasks/t/attempts", "/r/tasks/t/logs", "/r/events"):
        answer = await admin.get(f"/api/v1/dags/nope/runs{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


async def test_tasks_attempts_and_outputs_are_shown(both: Api) -> None:
    await both.put("dice")
    await both.flow.slots()
    async with await both.caller("admin") as admin:
        await admin.post(RUNS, json={"run_id": "r"})
        (first,) = await both.flow.begin(await record(both, "r"))
        await both.flow.start(first.attempt_id)
        await both.flow.end(first.attempt_id, output={"total": [1, "ü", None]})
        page = (await admin.get(f"{RUNS}/r/tasks")).json()
        assert [(task["task_id"], task["state"], task["try_number"]) for task in page["items"]] == [
            ("roll", "success", 1),
            ("report", "queued", 1),
        ]
        assert "output" not in page["items"][0]
        one = (await admin.get(f"{RUNS}/r/tasks/roll")).json()
        assert one["output"] == {"total": [1, "ü", None]}
        assert {**one, "output": None} == {**page["items"][0], "output": None}
        assert (await admin.get(f"{RUNS}/r/tasks/report?map_index=-1")).json()["output"] is None
        tries = (await admin.get(f"{RUNS}/r/tasks/roll/attempts")).json()["items"]
        assert [(a["attempt_id"], a["try_number"], a["state"]) for a in tries] == [(first.attempt_id, 1, "success")]
        assert ids((await admin.get(f"{RUNS}/r/tasks?state=success")).json()["items"], "task_id") == ["roll"]
        for path in ("/r/tasks/nope", "/r/tasks/roll?map_index=0", "/nope/tasks/roll"):
            assert (await admin.get(f"{RUNS}{path}")).status_code == 404, path
        for path in (
            "/r/tasks/a.b",
            "/r/tasks/roll?map_index=-2",
            "/r/tasks/roll?map_index=99999999999",
            "/r/tasks?state=x",
        ):
            assert (await admin.get(f"{RUNS}{path}")).status_code == 422, path


@pytest.mark.parametrize("text", ["0.5", "2026", "-1", " 7 ", "1e5", "20261122"])
async def test_a_number_is_no_moment(api: Api, admin: httpx.AsyncClient, text: str) -> None:
    await api.put("dice")
    answer = await admin.post("/api/v1/dags/dice/runs", json={"run_after": text})
    assert (answer.status_code, pointers(answer)) == (422, [("/run_after", "instant")])
