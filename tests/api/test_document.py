"""The OpenAPI document and its page: complete, true, self-contained."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from jsonschema import Draft202012Validator

from api.docs import page
from api.problems import ALL, BY_ERROR
from api.schemas import dags as dag_schemas
from metastore.queries import runs
from tests.api.remote import TASK, Worker, admit, offer, ticket_of
from tests.api.service import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.api.service import Api

VERBS: Final = ("get", "put", "post", "patch", "delete")


@pytest.fixture
def document(api: Api) -> dict[str, Any]:
    made: dict[str, Any] = api.app.openapi()
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]  # what a client reads


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for verb in VERBS:
            if verb in item:
                yield verb, path, item[verb]


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": document["components"]})


def test_every_call_is_documented(document: dict[str, Any]) -> None:
    tags = [tag["name"] for tag in document["tags"]]
    assert document["openapi"].startswith("3.1")
    assert len(list(operations(document))) >= 41
    for verb, path, operation in operations(document):
        where = f"{verb} {path}"
        assert operation["summary"], where
        assert len(operation["description"]) > 30, where
        assert operation["tags"][0] in tags, where
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (where, parameter["name"])
            assert parameter["in"] != "path" or parameter["schema"]["examples"], (where, parameter["name"])
        answers = operation["responses"]
        assert all(answer["description"] for answer in answers.values()), where
        if operation["security"] != [] if "security" in operation else True:
            assert {"401", "403", "503"} <= set(answers), where
            assert operation["x-runyard-scope"] or operation["x-runyard-credential"], where
        if verb in {"put", "post", "patch"}:
            assert {"400", "413", "415", "422"} <= set(answers), where
            assert operation["requestBody"]["required"], where
        if verb != "get" and operation["tags"] != ["Worker protocol"]:  # every call of which can be repeated as it is
            assert "Idempotency-Key" in [p["name"] for p in operation["parameters"]], where
        good = [answer for status, answer in answers.items() if status in {"200", "201", "202"}]
        for answer in good:
            for media, content in answer["content"].items():
                assert "schema" in content, where
                if media == "application/json" and path != "/openapi.json":
                    assert "example" in content, where


def test_every_schema_and_field_has_words(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert "properties" not in schema or schema.get("description"), name
        for field, value in schema.get("properties", {}).items():
            assert field == "items" or "$ref" in value or value.get("description"), f"{name}.{field}"


def test_parameters_say_what_is_taken_and_none_is_null(document: dict[str, Any]) -> None:
    seen = {}
    for verb, path, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            schema = parameter["schema"]
            assert "null" not in json.dumps(schema), (verb, path, parameter["name"])
            seen[parameter["name"]] = schema
    for name, good, bad in [
        ("Idempotency-Key", "a-1", "a b"),
        ("Idempotency-Key", "x" * 255, ""),
        ("label", ["team=data", "a/b="], ["team"]),
        ("label", ["a=b=c\nd"], ["=data"]),
    ]:
        assert validator(document, seen[name]).is_valid(good)
        assert not validator(document, seen[name]).is_valid(bad)


@pytest.mark.parametrize("body", [{}, {"paused": None}, {"tags": None}, {"paused": None, "tags": None}])
def test_the_schema_of_a_patch_says_that_something_changes(document: dict[str, Any], body: dict[str, Any]) -> None:
    check = validator(document, document["components"]["schemas"]["DagPatch"])
    assert not check.is_valid(body)
    assert check.is_valid(body | {"paused": True})
    assert check.is_valid(body | {"tags": ["demo"]})


def test_the_document_is_one_and_every_reference_in_it_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in schemas
    assert "HTTPValidationError" not in schemas
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for verb, path, operation in operations(document):
        for answer in operation["responses"].values():
            for content in answer.get("content", {}).values():
                if "example" in content:
                    validator(document, content["schema"]).validate(content["example"])
                    checked += 1
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                validator(document, content["schema"]).validate(content["example"])
                checked += 1
        assert verb, path
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            validator(document, {"$ref": f"#/components/schemas/{name}"}).validate(example)
            checked += 1
    assert checked > 30


class Story:
    """Every call with the examples of the document, in the order of a reader, and what was answered."""

    def __init__(self, api: Api, admin: httpx.AsyncClient, document: dict[str, Any]) -> None:
        self.api = api
        self.admin = admin
        self.schemas = document["components"]["schemas"]
        self.untold = {one["operationId"]: (verb, path, one) for verb, path, one in operations(document)}
        self.answered: list[tuple[str, Any, httpx.Response]] = []

    async def send(self, name: str, credential: str = "", **known: str) -> None:
        """Send one call; *known* is what no example can know."""
        verb, path, operation = self.untold.pop(name)
        for parameter in operation.get("parameters", ()):
            example = known.get(parameter["name"])
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", example or str(parameter["schema"]["examples"][0]))
            elif example is not None:
                path += f"?{parameter['name']}={example}"
        raw, media = self._body(operation)
        headers = {"Content-Type": media} if media else {}
        if credential:
            headers["Authorization"] = f"Bearer {credential}"
        answer = await self.admin.request(verb.upper(), path, content=raw, headers=headers)
        self.answered.append((name, operation, answer))

    def _body(self, operation: dict[str, Any]) -> tuple[bytes | None, str]:
        content = operation.get("requestBody", {}).get("content", {})
        if "application/octet-stream" in content:
            return b"The total is", "application/octet-stream"
        if (found := content.get("application/json")) is None:
            return None, ""
        if "example" in found:
            return json.dumps(found["example"]).encode(), "application/json"
        return json.dumps(self._example(found["schema"]["$ref"])).encode(), "application/json"

    def _example(self, ref: str) -> Any:
        return self.schemas[ref.rpartition("/")[2]]["examples"][0]

    async def users(self) -> None:
        """What those do who have runs run."""
        for name in ("put_dag", "list_dags", "get_dag", "patch_dag", "list_versions", "get_version", "create_run"):
            await self.send(name)
        await self.api.flow.slots()
        assert await self.api.flow.create(dag_id="dice", run_id="other")
        assert (await self.admin.get("/api/v1/dags/dice/runs/monday")).json()["state"] == "queued"
        monday = await until(lambda: self.api.store.read(runs.get, "dice", "monday"))
        assert monday is not None
        (first,) = await self.api.flow.begin(monday)
        await self.api.flow.start(first.attempt_id)
        await self.api.flow.end(first.attempt_id, output=7)
        for name in ("list_tasks", "get_task", "list_attempts", "get_logs", "list_events", "get_run", "list_runs"):
            await self.send(name)
        for name in ("list_all_runs", "cancel_run", "clear_run", "list_executors", "list_keys", "create_key"):
            await self.send(name)
        for name in ("get_dag_schema", "live", "ready", "metrics", "docs", "openapi"):
            await self.send(name)
        await self.admin.post("/api/v1/dags/dice/runs/monday/cancel", json={})
        await self.admin.post("/api/v1/dags/dice/runs/other/cancel", json={})
        await self.send("delete_dag")

    async def workers(self) -> None:
        """What a worker does, and those who look at it."""
        worker = self._example("WorkerRegister")
        named = {"credential": worker["token"], "worker_id": worker["worker_id"], "boot_id": worker["boot_id"]}
        for name in ("register", "list_workers", "get_worker", "drain_worker"):
            await self.send(name)
        await self.send("beat_worker", **named)
        await self.send("move_attempts")
        tasks = {"roll": TASK, "report": TASK | {"depends_on": ["roll"]}}
        first = await offer(self.api, tasks, run_id="monday")
        key = self._example("AttemptStart")["key"]
        await self.send("start", await ticket_of(self.api, first), attempt_id=first)
        await self.send("put_log", key, attempt_id=first, offset="0")
        for name in ("beat_attempt", "put_output", "finish"):
            await self.send(name, key, attempt_id=first)
        second = await admit(self.api, "report")
        own = Worker(self.api, await self.api.key("work"), worker["worker_id"], worker["boot_id"], worker["token"])
        assert (await own.start(second)).is_success
        await self.send("get_input", own.keys[second], attempt_id=second)
        await self.send("leave", **named)


async def test_every_example_works_as_it_stands_and_the_answers_are_what_the_document_says(
    both: Api, database_url: str
) -> None:
    assert database_url
    document = json.loads(json.dumps(both.app.openapi()))
    async with await both.caller("admin") as admin:
        story = Story(both, admin, document)
        await story.users()
        await story.workers()
        # Keys have random ids: the example's is nobody's.
        assert set(story.untold) == {"get_key", "revoke_key"}
        for name, operation, answer in story.answered:
            assert answer.is_success, (name, answer.text)
            described = operation["responses"][str(answer.status_code)]
            media = answer.headers.get("content-type", "").partition(";")[0]
            if answer.content:
                assert media in described["content"], name
            if media == "application/json":
                validator(document, described["content"][media]["schema"]).validate(answer.json())


async def test_problems_are_what_the_document_says(api: Api, document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/Problem"}
    async with await api.caller("read") as reader:
        for method, path in [
            ("GET", "/nope"),
            ("GET", "/api/v1/dags/x"),
            ("GET", "/api/v1/dags?limit=0"),
            ("POST", "/docs"),
        ]:
            answer = await reader.request(method, path)
            assert answer.headers["content-type"] == "application/problem+json"
            validator(document, schema).validate(answer.json())
            assert answer.json()["status"] == answer.status_code
            assert answer.json()["instance"] == f"urn:uuid:{answer.headers['request-id']}"


def test_every_kind_of_problem_is_documented_once(document: dict[str, Any]) -> None:
    codes = [one["code"] for one in document["x-problems"]]
    assert len(codes) == len(set(codes)) == len(ALL)
    assert {kind.code for kind in BY_ERROR.values()} <= set(codes)


async def test_the_page_needs_nothing_but_this_service(api: Api) -> None:
    async with api.client() as nobody:
        answer = await nobody.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    outside = re.findall(r"""(?:src|href)\s*=\s*["'](?!#|/openapi\.json|data:)([^"']*)""", answer.text)
    assert outside == []
    assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"\son\w+=|style=", page())


async def test_what_anybody_may_read_shows_nothing_of_the_installation(api: Api) -> None:
    await api.put("very_secret_dag")
    key = await api.key("admin")
    async with api.client() as nobody:
        for path in ("/docs", "/openapi.json", "/health/live", "/health/ready"):
            text = (await nobody.get(path)).text
            for secret in ("very_secret_dag", key.key_id, str(api.log_dir)):
                assert secret not in text


def test_the_story_of_the_examples_is_a_dag_that_loads() -> None:
    from dag.spec import load  # noqa: PLC0415  # the one that reads it

    assert load(dag_schemas.EXAMPLE_DOCUMENT, dag_id="dice", executors={"local"}).dag_id == "dice"


def test_importing_and_making_the_app_builds_no_document() -> None:
    """A start does not pay for what few ask for."""
    script = (
        "import sys, api.app\n"
        "late = {'fastapi.openapi.utils', 'jsonschema', 'yaml', 'api.assets'} & set(sys.modules)\n"
        "print(sorted(late))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "jsonschema" not in done.stdout
