"""Repeating requests: one effect, equal answers; and no 2xx without a commit."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import func, select

from dag.errors import Unavailable
from metastore.models.keys import api_keys, idempotency_keys
from metastore.models.runs import runs
from metastore.queries import runs as run_queries
from tests.api.service import DICE, pointers

if TYPE_CHECKING:
    import httpx
    from sqlalchemy import Connection

    from tests.api.service import Api

RUNS = "/api/v1/dags/dice/runs"

#: Changes of most kinds, in an order in which each of them works.
CHANGES: Final[list[tuple[str, str, Any, int]]] = [
    ("PUT", "/api/v1/dags/dice", DICE, 201),
    ("PATCH", "/api/v1/dags/dice", {"paused": True}, 200),
    ("POST", RUNS, {"run_id": "r"}, 201),
    ("POST", f"{RUNS}/r/cancel", {}, 202),
    ("POST", f"{RUNS}/r/clear", {}, 200),
    ("POST", f"{RUNS}/r/cancel", {}, 202),
    ("POST", "/api/v1/keys", {"name": "x", "scopes": ["read"]}, 201),
    ("DELETE", "/api/v1/dags/dice", None, 204),
]


def key(text: str) -> dict[str, str]:
    return {"Idempotency-Key": text}


def _count(conn: Connection) -> int:
    return conn.execute(select(func.count()).select_from(runs)).scalar_one()


async def test_every_change_can_be_repeated(both: Api) -> None:
    async with await both.caller("admin") as admin:
        for number, (method, path, body, status) in enumerate(CHANGES):
            first = await admin.request(method, path, json=body, headers=key(f"k{number}"))
            assert first.status_code == status, first.text
            assert "idempotent-replayed" not in first.headers
            for _ in range(2):
                again = await admin.request(method, path, json=body, headers=key(f"k{number}"))
                assert (again.status_code, again.content) == (status, first.content), (method, path)
                assert again.headers["idempotent-replayed"] == "true"
                for name in ("location", "etag", "content-type"):
                    assert again.headers.get(name) == first.headers.get(name)


async def test_the_first_answer_comes_again_whatever_changed_meanwhile(both: Api) -> None:
    await both.put("dice")
    async with await both.caller("admin") as admin:
        body = {"params": {"sides": 8}}
        first = await admin.post(RUNS, json=body, headers=key("k"))
        await both.put("dice", DICE | {"params": None})
        assert (await admin.post(RUNS, json=body)).status_code == 422
        assert (await admin.post(RUNS, json=body, headers=key("k"))).content == first.content
        await admin.post(f"{RUNS}/{first.json()['run_id']}/cancel", json={})
        await admin.delete("/api/v1/dags/dice")
        assert (await admin.post(RUNS, json=body, headers=key("k"))).content == first.content


async def test_a_key_belongs_to_its_request(both: Api) -> None:
    await both.put("dice")
    await both.put("other")
    async with await both.caller("admin") as admin:
        await admin.post(RUNS, json={"run_id": "r"}, headers=key("k"))
        for method, path, body in [
            ("POST", RUNS, {"run_id": "s"}),
            ("POST", RUNS, {"run_id": "r", "params": {}}),
            ("POST", f"{RUNS}?wait=0", {"run_id": "r"}),
            ("POST", "/api/v1/dags/other/runs", {"run_id": "r"}),
            ("POST", f"{RUNS}/r/cancel", {}),
            ("PATCH", "/api/v1/dags/dice", {"paused": True}),
        ]:
            answer = await admin.request(method, path, json=body, headers=key("k"))
            assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused"), path
        assert await both.store.read(_count) == 1
        await admin.patch("/api/v1/dags/other", json={"paused": True}, headers=key("m"))
        answer = await admin.request("DELETE", "/api/v1/dags/other", json={"paused": True}, headers=key("m"))
        assert answer.json()["code"] == "idempotency_key_reused"


async def test_the_same_key_of_somebody_else_is_another_key(api: Api) -> None:
    await api.put("dice")
    async with await api.caller("trigger") as one, await api.caller("trigger") as two:
        first = await one.post(RUNS, json={}, headers=key("k"))
        second = await two.post(RUNS, json={}, headers=key("k"))
    assert first.json()["run_id"] != second.json()["run_id"]


async def test_many_at_once_have_one_effect(both: Api) -> None:
    await both.put("dice")
    async with await both.caller("trigger") as operator:
        answers = await asyncio.gather(*(operator.post(RUNS, json={}, headers=key("k")) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert await both.store.read(_count) == 1


async def test_a_refused_request_leaves_nothing_and_is_judged_anew(both: Api) -> None:
    async with await both.caller("admin") as admin:
        assert (await admin.post(RUNS, json={}, headers=key("k"))).status_code == 404
        await both.put("dice")
        answer = await admin.post(RUNS, json={}, headers=key("k"))
        assert (answer.status_code, "idempotent-replayed" in answer.headers) == (201, False)


async def test_a_repeated_wait_waits_for_the_same_run(api: Api) -> None:
    await api.put("dice")
    async with await api.caller("admin") as admin:
        first = await admin.post(f"{RUNS}?wait=0.05", json={}, headers=key("k"))
        await admin.post(f"{RUNS}/{first.json()['run_id']}/cancel", json={})
        again = await admin.post(f"{RUNS}?wait=0.05", json={}, headers=key("k"))
    assert (again.status_code, again.json()["state"], first.json()["state"]) == (201, "cancelled", "queued")
    assert again.json()["run_id"] == first.json()["run_id"]


@pytest.mark.parametrize("bad", ["", "a b", "x" * 256, "é", "a\tb"])
async def test_a_key_that_is_none_is_refused(api: Api, bad: str) -> None:
    await api.put("dice")
    async with await api.caller("trigger") as operator:
        answer = await operator.post(
            RUNS, json={}, headers=[(b"Content-Type", b"application/json"), (b"Idempotency-Key", bad.encode())]
        )
        assert (answer.status_code, pointers(answer)) == (
            422,
            [("/header/idempotency-key", "bad_idempotency_key")],
        )
        twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Content-Type", "application/json")]
        assert (await operator.post(RUNS, content=b"{}", headers=twice)).status_code == 422
        assert (await operator.post(RUNS, json={}, headers=key("!~" + "x" * 253))).status_code == 201


async def test_a_repeated_creation_of_a_key_shows_it_again_and_stores_no_secret(both: Api) -> None:
    body = {"name": "ci", "scopes": ["read"]}
    async with await both.caller("admin") as admin:
        first = (await admin.post("/api/v1/keys", json=body, headers=key("k"))).json()
        again = (await admin.post("/api/v1/keys", json=body, headers=key("k"))).json()
        plain = (await admin.post("/api/v1/keys", json=body)).json()
    assert first == again
    assert plain["key"] != first["key"]
    async with both.client() as made:
        for one in (first, plain):
            answer = await made.get("/api/v1/dags", headers={"Authorization": f"Bearer {one['key']}"})
            assert answer.status_code == 200
    stored = await both.store.read(_everything_about_keys)
    assert first["key_id"] in stored
    for one in (first, plain):
        secret = one["key"].split("_")[2]
        assert secret not in stored
        assert one["key"] not in stored


def _everything_about_keys(conn: Connection) -> str:
    rows = [tuple(row) for table in (api_keys, idempotency_keys) for row in conn.execute(select(table))]
    return json.dumps(rows, default=str)


class _Lost(Exception):
    """The disk is full, say."""


@pytest.mark.parametrize("failure", [_Lost, Unavailable])
async def test_a_commit_that_fails_is_never_a_2xx(
    api: Api, monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    await api.put("dice")
    write = api.store.write

    async def fails(command: Any, *args: Any, **options: Any) -> Any:
        def rolled_back(tx: Any) -> Any:
            command(tx, *args, **options)
            raise failure("after the effect and before the COMMIT")

        return await write(rolled_back)

    async with await api.caller("admin") as admin:
        before = (await admin.get("/api/v1/dags/dice")).content
        monkeypatch.setattr(api.store, "write", fails)
        for method, path, body in [
            ("PUT", "/api/v1/dags/new", DICE),
            ("PATCH", "/api/v1/dags/dice", {"paused": True}),
            ("POST", RUNS, {"run_id": "r"}),
            ("POST", f"{RUNS}?wait=5", {"run_id": "r"}),
            ("POST", "/api/v1/keys", {"name": "x", "scopes": ["read"]}),
            ("DELETE", "/api/v1/dags/dice", None),
        ]:
            for headers in ({}, key("k")):
                answer = await admin.request(method, path, json=body, headers=headers)
                problem = answer.json()
                assert answer.status_code == (503 if failure is Unavailable else 500), path
                assert problem["retryable"] is True
                assert "disk" not in answer.text
        monkeypatch.undo()
        assert (await admin.get("/api/v1/dags/dice")).content == before
        assert (await admin.get(RUNS)).json()["items"] == []
        assert (await admin.post(RUNS, json={"run_id": "r"}, headers=key("k"))).status_code == 201


async def test_a_503_says_when_to_come_back(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("The metastore cannot be reached.")

    async with await api.caller("admin") as admin:
        await admin.get("/api/v1/dags")
        monkeypatch.setattr(api.store, "read", away)
        answer: httpx.Response = await admin.get("/api/v1/dags")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_a_request_under_no_key_has_one_effect_where_its_transaction_runs_twice(
    both: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a store may run it whose COMMIT was not answered, and that cannot find out how it ended."""
    write = both.store.write

    async def twice(*args: Any, **kwargs: Any) -> Any:
        await write(*args, **kwargs)
        return await write(*args, **kwargs)

    async with await both.caller("admin") as admin:
        monkeypatch.setattr(both.store, "write", twice)
        for method, path, body, status in CHANGES:
            answer = await admin.request(method, path, json=body)
            assert answer.status_code == status, answer.text
            assert "idempotent-replayed" not in answer.headers


async def test_a_request_under_no_key_leaves_little_behind_and_a_dry_run_nothing(both: Api) -> None:
    """What is kept is for this request alone, and that has its answer: nobody fills the disk with long ones."""
    tasks = {f"t{number}": {"empty": True} for number in range(50)}
    await both.put("dice", {"tasks": tasks})

    def kept(conn: Connection) -> list[tuple[str, int]]:
        found = conn.execute(select(idempotency_keys.c.key, idempotency_keys.c.body))
        return [(row.key, len(row.body)) for row in found]

    async with await both.caller("admin") as admin:
        await admin.post(RUNS, json={"run_id": "r"})
        run = await both.store.read(run_queries.get, "dice", "r")
        assert run is not None
        await both.flow.begin(run)
        before = await both.store.read(kept)
        dry = await admin.post(f"{RUNS}/r/clear", json={"only_failed": False, "dry_run": True})
        assert len(dry.json()["items"]) == 50
        assert await both.store.read(kept) == before
        done = await admin.post(f"{RUNS}/r/clear", json={"only_failed": False})
        assert len(done.json()["items"]) == 50
    [(_, size)] = set(await both.store.read(kept)) - set(before)
    assert size == 0
