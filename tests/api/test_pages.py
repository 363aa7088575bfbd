"""Pages, cursors, and what a key that is limited to a prefix can find out about the rest of the world: nothing."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.service import DICE, ids, pointers

if TYPE_CHECKING:
    import httpx

    from tests.api.service import Api

RUNS = "/api/v1/dags/sales_a/runs"


async def walk(client: httpx.AsyncClient, path: str, limit: int) -> tuple[list[Any], int]:
    """Return all items of a listing and the number of its pages."""
    items: list[Any] = []
    pages, cursor = 0, ""
    joint = "&" if "?" in path else "?"
    while True:
        answer = await client.get(f"{path}{joint}limit={limit}{cursor}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= limit
        items += page["items"]
        pages += 1
        if page["next_cursor"] is None:
            return items, pages
        cursor = f"&cursor={page['next_cursor']}"


async def populate(api: Api) -> None:
    for dag_id in ("ops", "sales_a", "sales_b", "sales_c"):
        await api.put(dag_id)
    async with await api.caller("admin") as admin:
        for number in range(7):
            await admin.post(RUNS, json={"run_id": f"r{number}", "labels": {"odd": str(number % 2)}})
        await admin.post("/api/v1/dags/ops/runs", json={"run_id": "o"})


async def test_every_listing_is_whole_and_in_order_at_any_page_size(both: Api) -> None:
    await populate(both)
    await both.flow.slots()
    run = await both.flow.create(dag_id="sales_b", run_id="x")
    await both.flow.begin(run)
    async with await both.caller("admin") as admin:
        for _ in range(3):
            await admin.post("/api/v1/keys", json={"name": "k", "scopes": ["read"]})
        for n in range(4):
            await both.put("sales_c", DICE | {"description": str(n)})
        for path, name in [
            ("/api/v1/dags", "dag_id"),
            ("/api/v1/dags?id_prefix=sales_", "dag_id"),
            (RUNS, "run_id"),
            (f"{RUNS}?label=odd=1", "run_id"),
            (f"{RUNS}?state=queued&state=running", "run_id"),
            ("/api/v1/runs", "run_id"),
            ("/api/v1/keys", "key_id"),
            ("/api/v1/dags/sales_c/versions", "version"),
            ("/api/v1/dags/sales_b/runs/x/tasks", "task_id"),
            ("/api/v1/dags/sales_b/runs/x/events", "seq"),
        ]:
            whole, pages = await walk(admin, path, 1000)
            assert pages == 1
            assert len(whole) >= 2, path
            for limit in (1, 2, 3):
                parts, pages = await walk(admin, path, limit)
                assert ids(parts, name) == ids(whole, name), (path, limit)
                assert pages == -(-len(whole) // limit)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1e3", "99999999999999999999"])
async def test_a_limit_out_of_range_is_refused(admin: httpx.AsyncClient, limit: str) -> None:
    answer = await admin.get(f"/api/v1/dags?limit={limit}")
    assert (answer.status_code, pointers(answer)[0][0]) == (422, "/query/limit")


async def test_a_cursor_that_was_not_given_out_here_is_refused(api: Api) -> None:
    await populate(api)
    async with await api.caller("read") as reader, await api.caller("read") as other:
        cursor = (await reader.get(f"{RUNS}?limit=2")).json()["next_cursor"]
        assert (await reader.get(f"{RUNS}?limit=5&cursor={cursor}")).status_code == 200
        api.start()
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        flipped = [
            base64.urlsafe_b64encode(raw[:n] + bytes([raw[n] ^ 1]) + raw[n + 1 :]).decode().rstrip("=")
            for n in range(len(raw))
        ]
        for made_up in [*flipped, "x", "", "....", "é", "W10", cursor[:-1], cursor + "A", "A" * 3000, "%00"]:
            answer = await reader.get(f"{RUNS}?cursor={made_up}")
            assert answer.status_code == 422, made_up
            assert pointers(answer)[0][0] == "/query/cursor"
        for path in (f"{RUNS}?state=queued", "/api/v1/runs?", "/api/v1/dags/ops/runs?", "/api/v1/dags?"):
            answer = await reader.get(f"{path}&cursor={cursor}")
            assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor"), path
        assert (await other.get(f"{RUNS}?cursor={cursor}")).json()["code"] == "bad_cursor"
        async with api.client() as again:
            headers = {"Authorization": reader.headers["authorization"]}
            assert (await again.get(f"{RUNS}?cursor={cursor}", headers=headers)).status_code == 200


async def test_a_query_parameter_that_is_not_known_is_refused(admin: httpx.AsyncClient) -> None:
    for path in (
        "/api/v1/dags?stat=x",
        "/api/v1/runs?limit=1&states=x",
        "/health/live?x=1",
        "/api/v1/executors?limit=1",
    ):
        answer = await admin.get(path)
        assert (answer.status_code, pointers(answer)[0][1]) == (422, "unknown_parameter"), path


async def seen(api: Api, client: httpx.AsyncClient) -> list[Any]:
    """Return everything that a caller can see by the calls whose answers depend on other DAGs."""
    answers = []
    for path in (
        "/api/v1/dags",
        "/api/v1/dags?limit=1",
        "/api/v1/dags?id_contains=s",
        "/api/v1/runs",
        "/api/v1/runs?limit=1",
        "/api/v1/runs?state=queued&state=running",
        "/api/v1/executors",
        "/api/v1/dags/ops",
        "/api/v1/dags/ops/runs",
        "/api/v1/dags/ops/runs/o",
        "/api/v1/dags/ops/runs/o/tasks",
        "/api/v1/dags/ops/runs/o/tasks/roll/logs",
        "/api/v1/dags/ops/runs/o/events",
        "/api/v1/dags/ops/versions",
        "/metrics",
    ):
        answer = await client.get(path)
        told = answer.json()
        told.pop("instance", None)
        answers.append((path, answer.status_code, told))
    for method, path, body in (
        ("POST", "/api/v1/dags/ops/runs", {"run_id": "mine"}),
        ("POST", "/api/v1/dags/ops/runs/o/cancel", {}),
        ("POST", "/api/v1/dags/ops/runs/o/clear", {}),
        ("PUT", "/api/v1/dags/ops", DICE),
        ("PATCH", "/api/v1/dags/ops", {"paused": True}),
        ("DELETE", "/api/v1/dags/ops", None),
    ):
        answer = await client.request(method, path, json=body)
        told = answer.json()
        told.pop("instance", None)
        answers.append((path, answer.status_code, told))
    assert api
    return answers


async def test_for_a_prefixed_key_the_rest_of_the_world_does_not_exist(both: Api) -> None:
    """Two worlds that differ only in what the key does not cover answer it alike."""
    await both.put("sales_a")
    await both.put("sales_b")
    async with await both.caller("admin") as admin:
        await admin.post(RUNS, json={"run_id": "r"})
    scopes = ("read", "logs", "trigger", "define")
    async with await both.caller(*scopes, prefix="sales_") as limited:
        small = await seen(both, limited)
        await both.put("ops")
        await both.put("sales")
        await both.put("zzz")
        async with await both.caller("admin") as admin:
            await admin.post("/api/v1/dags/ops/runs", json={"run_id": "o"})
        await both.flow.slots()
        big = await seen(both, limited)
    without = [one for one in big if one[0] != "/api/v1/executors"]
    assert without == [one for one in small if one[0] != "/api/v1/executors"]
    assert all(status in {403, 404} for path, status, _ in small if "/ops" in path or path == "/metrics")
    assert all(item["places"] == [] for path, _, told in big if path == "/api/v1/executors" for item in told["items"])
    async with await both.caller("admin") as admin:
        assert (await admin.get("/api/v1/dags/ops/runs/o")).json()["state"] == "queued"


async def test_a_prefix_is_compared_exactly(both: Api) -> None:
    for dag_id in ("sales_a", "SALES_A", "salesXa", "xsales_a"):
        await both.put(dag_id)
    async with await both.caller("read", prefix="sales_") as limited:
        assert ids((await limited.get("/api/v1/dags")).json()["items"]) == ["sales_a"]
        for dag_id in ("SALES_A", "salesXa", "xsales_a"):
            assert (await limited.get(f"/api/v1/dags/{dag_id}")).status_code == 404


@pytest.mark.parametrize(
    ("path", "name"),
    [("dags?limit=1&limit=2", "limit"), ("dags?paused=true&paused=true", "paused"), ("runs?cursor=&cursor=", "cursor")],
)
async def test_a_parameter_that_has_one_value_is_given_once(admin: httpx.AsyncClient, path: str, name: str) -> None:
    answer = await admin.get(f"/api/v1/{path}")
    assert (answer.status_code, pointers(answer)) == (422, [(f"/query/{name}", "repeated_parameter")])
    assert name in answer.json()["detail"]


async def test_a_parameter_that_has_several_values_is_given_several_times(admin: httpx.AsyncClient) -> None:
    for path in ("dags?tag=a&tag=b", "runs?state=queued&state=running&label=a=b&label=c=d"):
        assert (await admin.get(f"/api/v1/{path}")).status_code == 200, path
