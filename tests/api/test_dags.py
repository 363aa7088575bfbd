"""DAGs over HTTP: put, read, patch, delete, versions, preconditions, and what is wrong with a document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.service import DICE, ids, pointers

if TYPE_CHECKING:
    import httpx

    from tests.api.service import Api

YAML = """\
params: {type: object, properties: {sides: {type: integer, minimum: 2, default: 6}}}
tasks:
  roll: {command: ["true"], executor: local}
  report: {command: ["true"], depends_on: [roll], executor: local}
"""


async def test_a_put_creates_then_does_nothing_then_makes_a_version(both: Api) -> None:
    async with await both.caller("define") as author, await both.caller("read") as reader:
        first = await author.put("/api/v1/dags/dice", json=DICE)
        assert (first.status_code, first.headers["location"]) == (201, "/api/v1/dags/dice")
        told = first.json()
        assert (told["version"], told["created"], told["changed"]) == (1, True, True)
        again = await author.put("/api/v1/dags/dice", json=DICE)
        assert (again.status_code, again.json()) == (200, told | {"created": False, "changed": False})
        assert again.headers["etag"] == first.headers["etag"]
        other = await author.put("/api/v1/dags/dice", json=DICE | {"description": "new", "tags": ["x"]})
        told = other.json()
        assert (other.status_code, told["version"], told["created"], told["changed"]) == (200, 2, False, True)
        shown = await reader.get("/api/v1/dags/dice")
        assert shown.json() == {
            "dag_id": "dice",
            "version": 2,
            "paused": False,
            "description": "new",
            "tags": ["x"],
            "owners": [],
            "created_at": told["created_at"],
            "updated_at": told["updated_at"],
            "document": DICE | {"description": "new", "tags": ["x"]},
        }
        versions = (await reader.get("/api/v1/dags/dice/versions")).json()
        assert [one["version"] for one in versions["items"]] == [2, 1]
        assert [one["task_count"] for one in versions["items"]] == [2, 2]
        assert (await reader.get("/api/v1/dags/dice/versions/1")).json()["document"] == DICE


@pytest.mark.parametrize(
    "media", ["application/yaml", "text/yaml", "application/x-yaml", "application/yaml; charset=utf-8"]
)
async def test_yaml_means_the_same_as_json(admin: httpx.AsyncClient, media: str) -> None:
    await admin.put("/api/v1/dags/dice", json=DICE)
    answer = await admin.put("/api/v1/dags/dice", content=YAML, headers={"Content-Type": media})
    assert (answer.status_code, answer.json()["changed"]) == (200, False)


async def test_a_bad_document_is_refused_with_everything_that_is_wrong(admin: httpx.AsyncClient) -> None:
    document = {
        "dag_id": "other",
        "surprise": 1,
        "tasks": {"a": {"command": ["true"], "depends_on": ["b", "nowhere"]}, "b": {"depends_on": ["a"]}},
    }
    answer = await admin.put("/api/v1/dags/dice", json=document)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "document_invalid")
    assert answer.headers["content-type"] == "application/problem+json"
    places = {pointer for pointer, _ in pointers(answer)}
    assert {"/dag_id", "/surprise", "/tasks/a/depends_on/1", "/tasks/b"} <= places
    assert all(error["message"] for error in problem["errors"])
    assert (await admin.get("/api/v1/dags/dice")).status_code == 404


async def test_an_executor_that_is_not_configured_is_refused(admin: httpx.AsyncClient) -> None:
    document = {"tasks": {"a": {"command": ["true"], "executor": "kubernetes"}}}
    answer = await admin.put("/api/v1/dags/dice", json=document)
    assert answer.status_code == 422
    assert pointers(answer)[0][0] == "/tasks/a/executor"


@pytest.mark.parametrize(
    "dag_id", ["a b", "a%00b", "%C3%A9", "a%0A", "a%5C", "a%27--", "x" * 251, "%F0%9F%92%A5", "a,b", "%7Ba%7D"]
)
async def test_an_id_that_is_none_is_refused_by_every_call(admin: httpx.AsyncClient, dag_id: str) -> None:
    for method, rest in [("PUT", ""), ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/runs"), ("GET", "/runs")]:
        answer = await admin.request(method, f"/api/v1/dags/{dag_id}{rest}", json={"paused": True})
        assert answer.status_code == 422, (method, rest, answer.text)
        assert ("/path/dag_id", "invalid_id") in pointers(answer)


@pytest.mark.parametrize("dag_id", ["a", "A.b_c~d:e+f-g", "0", "x" * 250, "...", "health"])
async def test_an_id_that_is_one_is_taken(admin: httpx.AsyncClient, dag_id: str) -> None:
    assert (await admin.put(f"/api/v1/dags/{dag_id}", json=DICE)).status_code == 201
    assert (await admin.get(f"/api/v1/dags/{dag_id}")).json()["dag_id"] == dag_id


@pytest.mark.parametrize("dots", ["%2e", "%2e%2e", ".%2e"])
async def test_dots_are_no_id(api: Api, dots: str) -> None:
    async with await api.caller("admin") as caller:
        answer = await caller.put(f"/api/v1/dags/{dots}", json=DICE)
        assert answer.status_code in {404, 405, 422}
        assert (await caller.get("/api/v1/dags")).json()["items"] == []


async def test_a_dag_is_paused_tagged_and_unpaused(both: Api) -> None:
    await both.put("dice")
    async with await both.caller("admin") as admin:
        paused = await admin.patch("/api/v1/dags/dice", json={"paused": True})
        assert paused.json()["paused"] is True
        tagged = await admin.patch("/api/v1/dags/dice", json={"tags": ["x", "y"]})
        assert (tagged.json()["paused"], tagged.json()["tags"]) == (True, ["x", "y"])
        assert paused.headers["etag"] != tagged.headers["etag"]
        again = await admin.patch("/api/v1/dags/dice", json={"tags": ["x", "y"]})
        assert again.headers["etag"] == tagged.headers["etag"]
        assert (await admin.patch("/api/v1/dags/dice", json={"paused": False})).json()["paused"] is False


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ("", "nothing_to_change")),
        ({"paused": None}, ("", "nothing_to_change")),
        ({"paused": "yes"}, ("/paused", "wrong_type")),
        ({"pause": True}, ("/pause", "unknown_field")),
        ({"tags": [""]}, ("/tags/0", "wrong_value")),
        ({"tags": "x"}, ("/tags", "wrong_type")),
        ({"tags": ["x"] * 101}, ("/tags", "too_long")),
    ],
)
async def test_a_patch_says_what_is_wrong_with_it(admin: httpx.AsyncClient, body: Any, place: tuple[str, str]) -> None:
    await admin.put("/api/v1/dags/dice", json=DICE)
    answer = await admin.patch("/api/v1/dags/dice", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == place[0]
    if body != {"tags": [""]}:  # the words of a tag are the document's own
        assert pointers(answer) == [place]


async def test_a_deleted_dag_is_gone_unless_one_of_its_runs_is_active(both: Api) -> None:
    await both.put("dice")
    async with await both.caller("admin") as admin:
        await admin.post("/api/v1/dags/dice/runs", json={"run_id": "r"})
        refused = await admin.delete("/api/v1/dags/dice")
        assert (refused.status_code, refused.json()["code"]) == (409, "still_active")
        await admin.post("/api/v1/dags/dice/runs/r/cancel", json={})
        deleted = await admin.delete("/api/v1/dags/dice")
        assert (deleted.status_code, deleted.content) == (204, b"")
        for path in ("", "/runs/r", "/versions/1", "/versions", "/runs/r/events"):
            assert (await admin.get(f"/api/v1/dags/dice{path}")).status_code == 404, path
        assert (await admin.delete("/api/v1/dags/dice")).status_code == 404


class TestPreconditions:
    async def test_a_reader_who_has_it_already_gets_304(self, admin: httpx.AsyncClient) -> None:
        tag = (await admin.put("/api/v1/dags/dice", json=DICE)).headers["etag"]
        for header in (tag, "*", f'"other", {tag}', f"W/{tag}"):
            answer = await admin.get("/api/v1/dags/dice", headers={"If-None-Match": header})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert (await admin.get("/api/v1/dags/dice", headers={"If-None-Match": '"x"'})).status_code == 200

    async def test_a_change_in_between_is_not_overwritten(self, both: Api) -> None:
        await both.put("dice")
        async with await both.caller("admin") as admin:
            old = (await admin.get("/api/v1/dags/dice")).headers["etag"]
            new = (await admin.patch("/api/v1/dags/dice", json={"paused": True}, headers={"If-Match": old})).headers
            for method, body in (
                ("PUT", DICE | {"description": "mine"}),
                ("PATCH", {"paused": False}),
                ("DELETE", None),
            ):
                answer = await admin.request(method, "/api/v1/dags/dice", json=body, headers={"If-Match": old})
                assert (answer.status_code, answer.json()["code"]) == (412, "revision_mismatch"), method
            answer = await admin.put(
                "/api/v1/dags/dice", json=DICE | {"owners": ["a"]}, headers={"If-Match": new["etag"]}
            )
            assert answer.status_code == 200
            assert (await admin.delete("/api/v1/dags/dice", headers={"If-Match": "*"})).status_code == 204

    async def test_create_only_creates_only(self, both: Api) -> None:
        async with await both.caller("define") as author:
            first = await author.put("/api/v1/dags/dice", json=DICE, headers={"If-None-Match": "*"})
            second = await author.put("/api/v1/dags/dice", json=DICE, headers={"If-None-Match": "*"})
        assert first.status_code == 201
        assert (second.status_code, second.json()["code"]) == (412, "precondition_failed")

    async def test_change_only_does_not_create(self, admin: httpx.AsyncClient) -> None:
        for tag in ("*", '"x"'):
            answer = await admin.put("/api/v1/dags/dice", json=DICE, headers={"If-Match": tag})
            assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
        assert (await admin.get("/api/v1/dags/dice")).status_code == 404

    async def test_the_tag_of_a_deleted_dag_does_not_match_its_namesake(self, admin: httpx.AsyncClient) -> None:
        old = (await admin.put("/api/v1/dags/dice", json=DICE)).headers["etag"]
        await admin.delete("/api/v1/dags/dice")
        await admin.put("/api/v1/dags/dice", json=DICE)
        answer = await admin.patch("/api/v1/dags/dice", json={"paused": True}, headers={"If-Match": old})
        assert answer.status_code == 412

    async def test_a_weak_or_mangled_tag_matches_nothing(self, admin: httpx.AsyncClient) -> None:
        tag = (await admin.put("/api/v1/dags/dice", json=DICE)).headers["etag"]
        for header in (f"W/{tag}", tag.strip('"'), tag[:-2] + '"', "", ",", '"'):
            answer = await admin.patch("/api/v1/dags/dice", json={"paused": True}, headers={"If-Match": header})
            assert answer.status_code == 412, header


async def test_filters_narrow_the_list_down(both: Api) -> None:
    for dag_id, tags in [("sales_a", ["x", "y"]), ("sales_b", ["x"]), ("ops", [])]:
        await both.put(dag_id, DICE | {"tags": tags})
    async with await both.caller("admin") as admin:
        await admin.patch("/api/v1/dags/ops", json={"paused": True})
        for query, expected in [
            ("", ["ops", "sales_a", "sales_b"]),
            ("?tag=x", ["sales_a", "sales_b"]),
            ("?tag=x&tag=y", ["sales_a"]),
            ("?tag=%25", []),
            ("?paused=true", ["ops"]),
            ("?paused=false", ["sales_a", "sales_b"]),
            ("?id_prefix=sales_", ["sales_a", "sales_b"]),
            ("?id_contains=ALES", ["sales_a", "sales_b"]),
            ("?id_contains=_", ["sales_a", "sales_b"]),
        ]:
            assert ids((await admin.get(f"/api/v1/dags{query}")).json()["items"]) == expected, query


@pytest.mark.parametrize(
    "query", ["tag=%00", "id_contains=%00", "id_prefix=a%20b", "paused=perhaps", "tag=" + "x" * 300]
)
async def test_a_filter_that_can_match_nothing_is_refused(both: Api, query: str) -> None:
    async with await both.caller("read") as reader:
        answer = await reader.get(f"/api/v1/dags?{query}")
    assert answer.status_code == 422
    assert pointers(answer)[0][0].startswith("/query/")


async def test_the_published_schema_is_served(admin: httpx.AsyncClient) -> None:
    answer = await admin.get("/api/v1/schema/dag")
    assert answer.headers["content-type"] == "application/schema+json"
    assert json.loads(answer.content)["properties"]["tasks"]
