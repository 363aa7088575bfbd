"""The authorization matrix: every call x every credential x what is one's own, another's, or not there.

``tests/api/test_access.py`` has what each call asks for; here is what then may be reached with it.  A call that is in
the document and not in the table fails the test: whoever adds one says here what another's key finds behind it.
Whatever is refused has changed nothing, and what a limited key does not cover looks like what does not exist.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.api.remote import Worker, record_of
from tests.api.service import DICE
from tests.attack.scene import LIMITED, Scene, Side

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.api.service import Api

Body = Any
_EVENTS: Final = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Row:
    """What one call asks for, and what it answers to who has that."""

    #: The scope of a key, or the kind of a worker's credential; empty: nothing.
    needs: str
    #: To what is there, and to what is not.
    good: int = 200
    missing: int = 404
    #: To a key for some DAGs: about its own, about another's. None: the same as to any other key.
    limited: tuple[int, int] | None = (200, 404)
    body: Callable[[Side], Body] | None = None
    query: Callable[[Side], str] = lambda _: ""
    headers: dict[str, str] | None = None
    #: Whether a key for other queues is refused.
    of_queues: bool = False
    #: Which DAG or run it is about.
    idle: bool = False
    ended: bool = False


def _empty(_: Side) -> Body:
    return {}


def _boot(side: Side) -> Body:
    return {"boot_id": side.worker.boot_id}


def _start(side: Side) -> Body:
    return {"protocol": 1, "boot_id": side.worker.boot_id, "key": "S" * 43, "worker_id": side.worker.worker_id}


def _read(**more: Any) -> Row:
    return Row("read", **more)


_PUBLIC: Final = Row("", missing=200)
#: What concerns everybody, and shows a limited key nothing of others' DAGs.
_WHOLE: Final = _read(missing=200, limited=None)
_KEYS: Final = Row("admin", limited=None)
_RUN: Final = "/api/v1/dags/{dag_id}/runs/{run_id}"
_ATTEMPT: Final = "/worker/v1/attempts/{attempt_id}"

TABLE: Final[dict[tuple[str, str], Row | tuple[Row, ...]]] = {
    ("GET", "/health/live"): _PUBLIC,
    ("GET", "/health/ready"): _PUBLIC,
    ("GET", "/docs"): _PUBLIC,
    ("GET", "/openapi.json"): _PUBLIC,
    ("GET", "/metrics"): _read(missing=200, limited=(403, 403)),
    ("PUT", "/api/v1/dags/{dag_id}"): Row(
        "define", missing=201, body=lambda _: DICE | {"description": "mine"}, idle=True
    ),
    ("GET", "/api/v1/dags"): _WHOLE,
    ("GET", "/api/v1/dags/{dag_id}"): _read(idle=True),
    ("PATCH", "/api/v1/dags/{dag_id}"): Row("define", body=lambda _: {"paused": True}, idle=True),
    ("DELETE", "/api/v1/dags/{dag_id}"): Row("define", good=204, limited=(204, 404), idle=True),
    ("GET", "/api/v1/dags/{dag_id}/versions"): _read(idle=True),
    ("GET", "/api/v1/dags/{dag_id}/versions/{version}"): _read(),
    ("GET", "/api/v1/schema/dag"): _WHOLE,
    ("POST", "/api/v1/dags/{dag_id}/runs"): Row("trigger", good=201, limited=(201, 404), body=_empty, idle=True),
    ("GET", "/api/v1/dags/{dag_id}/runs"): _read(idle=True),
    ("GET", "/api/v1/runs"): _WHOLE,
    ("GET", _RUN): _read(),
    ("POST", f"{_RUN}/cancel"): Row("trigger", good=202, limited=(202, 404), body=_empty),
    ("POST", f"{_RUN}/clear"): Row("trigger", body=_empty, ended=True),
    ("GET", f"{_RUN}/tasks"): _read(),
    ("GET", f"{_RUN}/tasks/{{task_id}}"): _read(),
    ("GET", f"{_RUN}/tasks/{{task_id}}/attempts"): _read(),
    ("GET", f"{_RUN}/tasks/{{task_id}}/logs"): (
        Row("logs"),
        Row("logs", query=lambda _: "?follow=true"),
        Row("logs", query=lambda _: "?follow=true", headers=_EVENTS),
    ),
    ("GET", f"{_RUN}/events"): (_read(), _read(headers=_EVENTS), _read(headers=_EVENTS | {"Last-Event-ID": "1"})),
    ("GET", "/api/v1/executors"): _WHOLE,
    ("GET", "/api/v1/workers"): _WHOLE,
    ("GET", "/api/v1/workers/{worker_id}"): _read(limited=None),
    ("POST", "/api/v1/workers/{worker_id}/drain"): Row("admin", good=202, limited=None, body=_empty),
    ("POST", "/api/v1/keys"): Row(
        "admin", good=201, missing=201, limited=None, body=lambda _: {"name": "k", "scopes": ["read"]}
    ),
    ("GET", "/api/v1/keys"): Row("admin", missing=200, limited=None),
    ("GET", "/api/v1/keys/{key_id}"): _KEYS,
    ("DELETE", "/api/v1/keys/{key_id}"): Row("admin", good=204, limited=None),
    # Whoever may register workers speaks for all of them, within its queues: the lock of a worker's home is its proof.
    ("POST", "/worker/v1/workers"): Row(
        "work", missing=200, limited=None, body=lambda side: side.worker.registration(), of_queues=True
    ),
    ("POST", "/worker/v1/workers/{worker_id}/heartbeat"): Row("worker token", body=_boot),
    ("DELETE", "/worker/v1/workers/{worker_id}"): Row(
        "worker token", good=204, query=lambda side: f"?boot_id={side.worker.boot_id}"
    ),
    # Each call in it shows the credential of its own attempt: tests/api/test_worker_moves.py.
    ("POST", "/worker/v1/attempts"): Row("work", missing=200, limited=None, body=_empty),
    ("POST", f"{_ATTEMPT}/start"): Row("ticket", body=_start),
    ("POST", f"{_ATTEMPT}/heartbeat"): Row("attempt key", body=_boot),
    ("PUT", f"{_ATTEMPT}/logs"): Row("attempt key", body=lambda _: b"mine", query=lambda _: "?offset=0"),
    ("PUT", f"{_ATTEMPT}/output"): Row("attempt key", good=204, body=lambda _: {"total": 8}),
    ("GET", f"{_ATTEMPT}/inputs/{{task_id}}"): Row("attempt key"),
    ("POST", f"{_ATTEMPT}/finish"): Row("attempt key", body=lambda side: side.worker.end()),
}
ROWS: Final = [
    pytest.param(method, path, row, id=f"{method} {path} {number}")
    for (method, path), rows in TABLE.items()
    for number, row in enumerate(rows if isinstance(rows, tuple) else (rows,))
]
_OF_WORKERS: Final = frozenset({"worker token", "ticket", "attempt key"})


def expected(row: Row, who: str, place: str) -> int:
    """Return what *who* is answered about what lies at *place*."""
    if not row.needs:
        return row.good
    absent = row.missing if place in {"missing", "nowhere"} else row.good
    if row.needs in _OF_WORKERS:
        return _expected_of_workers(row, who, place)
    scope, _, limit = who.partition(", ")
    if scope == "all but admin":
        scope = row.needs if row.needs in LIMITED else "read"
    if scope not in {"read", "logs", "trigger", "define", "work", "admin"}:
        return 401
    if scope not in {row.needs, "admin"}:
        return 403
    if limit == "other queue" and row.of_queues:
        return 403
    if limit != "limited" or row.limited is None:
        return absent
    if place == "missing":
        return row.missing if row.limited[0] == row.good else row.limited[0]
    return row.limited[0 if place == "own" else 1]


def _expected_of_workers(row: Row, who: str, place: str) -> int:
    """Return what a call of a worker answers: to what is not its own, all the same whose it is."""
    name, _, kind = who.partition(" ")
    if row.needs == "ticket":
        return row.good if (kind, name) == ("ticket", place) else 401
    if kind not in {"worker token", "attempt key", "token"}:
        return 401
    # Its id is 122 random bits: who knows one may learn that it is there, and a worker has to hear that it is not.
    if place in {"missing", "nowhere"}:
        return row.missing
    return row.good if (kind, name) == (row.needs, place) else 401


class Matrix:
    """One call, tried by everybody."""

    def __init__(self, api: Api, database: str, method: str, path: str, row: Row) -> None:
        self.api = api
        self.row = row
        self.method = method
        self.path = path
        self._database = database.removeprefix("sqlite:///")

    async def send(self, scene: Scene, who: str, place: str) -> httpx.Response:
        side, row = scene.sides[place], self.row
        path = self.path.format(
            dag_id=side.idle_dag if row.idle else side.dag_id,
            run_id=side.ended_run if row.ended else side.run_id,
            task_id=side.task_id,
            version=side.version,
            key_id=side.key_id,
            worker_id=side.worker.worker_id,
            attempt_id=side.queued if self.path.endswith("/start") else side.attempt_id,
        )
        body = None if row.body is None else row.body(side)
        raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        media = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        headers = dict(row.headers or {}) | ({} if raw is None else {"Content-Type": media})
        if credential := scene.credentials[who]:
            headers["Authorization"] = f"Bearer {credential}"
        async with self.api.client() as client:
            return await client.request(self.method, path + row.query(side), content=raw, headers=headers)

    def everything(self) -> dict[str, list[Any]]:
        """Return all that is stored, but when a key was last used."""
        with sqlite3.connect(self._database) as conn:
            names = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            found = {name: conn.execute(f'SELECT * FROM "{name}"').fetchall() for name in names if name != "api_keys"}  # noqa: S608  # the names are its own
            found["api_keys"] = conn.execute("SELECT key_id, scopes, revoked_at FROM api_keys").fetchall()
        conn.close()
        return found


def alike(answer: httpx.Response, side: Side, row: Row) -> dict[str, Any]:
    """Return what an answer says, without the names that it was asked with."""
    text = answer.text
    for name in (side.idle_dag if row.idle else side.dag_id, side.ended_run if row.ended else side.run_id):
        text = text.replace(f"{name}/", "ID/").replace(f"'{name}'", "'ID'").replace(f"/{name}", "/ID")
    told: dict[str, Any] = json.loads(text)
    return {name: value for name, value in told.items() if name not in {"instance", "errors"}}


def test_every_call_of_the_document_is_in_the_table(api: Api) -> None:
    paths = api.app.openapi()["paths"]
    calls = {(verb.upper(), path) for path, item in paths.items() for verb in item}
    assert calls == set(TABLE)


@pytest.mark.parametrize(("method", "path", "row"), ROWS)
async def test_who_reaches_what(api: Api, sqlite_url: str, method: str, path: str, row: Row) -> None:
    api.start(stream_age=timedelta(seconds=0.05), heartbeat=timedelta(seconds=0.02))
    matrix = Matrix(api, sqlite_url, method, path, row)
    number = 1
    scene = await Scene(api, number).build()
    reached = 0
    before = matrix.everything()
    for who in scene.credentials:
        answers = {}
        for place in scene.sides:
            answer = answers[place] = await matrix.send(scene, who, place)
            assert answer.status_code == expected(row, who, place), (who, place, answer.text)
            assert (credential := scene.credentials[who]) == "" or credential not in answer.text
            reached += answer.is_success
            if answer.is_success and method != "GET":
                before = matrix.everything()
            assert matrix.everything() == before, (who, place)
        refused = [answers[place] for place in ("other", "nowhere")]
        if not any(answer.is_success for answer in refused) and row.needs not in _OF_WORKERS:
            assert alike(refused[0], scene.sides["other"], row) == alike(refused[1], scene.sides["nowhere"], row), who
        if method != "GET" and any(answer.is_success for answer in answers.values()):
            number += 1
            scene = await Scene(api, number).build()
            before = matrix.everything()
    assert reached


async def test_the_ticket_of_a_queue_that_a_worker_does_not_serve_is_of_no_use_to_it(api: Api) -> None:
    scene = await Scene(api, 1).build()
    own = scene.sides["own"]
    key = await api.key("work", queues=["gpu"])
    thief = Worker(api, key)
    assert (await thief.register()).status_code == 403
    assert (await thief.register(queues=["gpu", "default"])).status_code == 403
    assert (await thief.register(queues=["gpu"])).status_code == 200
    assert (await thief.start(own.queued)).status_code == 403
    # Nor by the name of a worker that does: a process of it that is not the registered one is told that it is over.
    assert (await thief.start(own.queued, worker_id=own.worker.worker_id)).status_code == 410
    assert (await record_of(api, own.queued)).state == "queued"
    assert (await own.worker.start(own.queued)).status_code == 200


async def test_the_key_of_an_attempt_that_has_ended_opens_its_log_only(api: Api) -> None:
    scene = await Scene(api, 1).build()
    own = scene.sides["own"]
    worker, attempt_id = own.worker, own.attempt_id
    assert (await worker.input(attempt_id, "roll")).json() == {"total": 7}
    assert (await worker.finish(attempt_id)).json()["accepted"] is True
    assert (await worker.beat_attempt(attempt_id)).status_code == 410
    assert (await worker.output(attempt_id, 9)).status_code == 410
    assert (await worker.input(attempt_id, "roll")).status_code == 410
    assert (await worker.log(attempt_id, 0, b"late")).status_code == 200
    assert (await worker.finish(attempt_id, outcome="failed")).json()["accepted"] is False
