"""The client against a real server that misbehaves on purpose."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from runyard import client
from runyard.client import Api, Refusal, path_of
from runyard.exits import Exit, Stop
from runyard.world import SystemClock
from tests.world import SeededEntropy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the next of its server's answers, the last one for ever."""

    protocol_version = "HTTP/1.1"
    answers: list[Answer]
    seen: list[dict[str, Any]]

    def handle_one(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.seen.append(
            {"path": self.path, "body": self.rfile.read(length), **{k.lower(): v for k, v in self.headers.items()}}
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        answer(self)

    do_GET = do_POST = do_PUT = handle_one  # noqa: N815  # the names that the base class looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        pass

    def say(self, status: int, body: object, **headers: str) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    def break_off(self, raw: bytes = b"") -> None:
        """Send *raw* as a part of more, and hang up."""
        if raw:
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw) + 1000))
            self.end_headers()
            self.wfile.write(raw)
        self.close_connection = True

    def stream(self, raw: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def serving(*answers: Answer) -> Iterator[tuple[Api, list[dict[str, Any]]]]:
    seen: list[dict[str, Any]] = []
    handler = type("Scripted", (Handler,), {"answers": list(answers), "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    api = Api(f"http://127.0.0.1:{server.server_port}", "a-key", clock=SystemClock(), entropy=SeededEntropy())
    try:
        yield api, seen
    finally:
        api.close()
        server.shutdown()
        server.server_close()
        thread.join()


def ok(body: object = None) -> Answer:
    return lambda handler: handler.say(200, {} if body is None else body)


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PAUSE", 0.01)


def test_every_request_shows_the_key_and_every_mutation_can_be_repeated() -> None:
    with serving(ok()) as (api, seen):
        api.get("/api/v1/dags")
        api.send("POST", "/api/v1/dags/a/runs")
        api.send("POST", "/api/v1/dags/a/runs")
    assert {request["authorization"] for request in seen} == {"Bearer a-key"}
    keys = [request.get("idempotency-key") for request in seen]
    assert keys[0] is None
    assert keys[1]
    assert keys[2]
    assert keys[1] != keys[2]


def test_a_lost_answer_is_asked_for_again_with_the_same_key() -> None:
    with serving(Handler.break_off, Handler.break_off, ok({"run_id": "r"})) as (api, seen):
        assert api.send("POST", "/api/v1/dags/a/runs", {"params": {}}) == {"run_id": "r"}
    assert len(seen) == 3
    assert len({request["idempotency-key"] for request in seen}) == 1
    assert {request["body"] for request in seen} == {b'{"params": {}}'}


def test_a_service_that_cannot_at_the_moment_is_asked_again() -> None:
    busy = {"detail": "The metastore cannot be reached.", "code": "unavailable"}
    with serving(lambda handler: handler.say(503, busy, Retry_After="0"), ok({"items": []})) as (api, seen):
        assert api.get("/api/v1/dags") == {"items": []}
    assert len(seen) == 2


def test_a_service_that_was_never_there_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PATIENCE_AT_FIRST", 0.05)
    with serving(ok()) as (api, _):
        gone = Api(api.url, "a-key", clock=SystemClock(), entropy=SeededEntropy())
    with pytest.raises(Stop) as stop:
        gone.get("/api/v1/dags")
    gone.close()
    assert stop.value.code is Exit.UNREACHABLE
    assert gone.url in stop.value.message


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Exit.INVALID),
        (401, Exit.REFUSED),
        (403, Exit.REFUSED),
        (404, Exit.NOT_FOUND),
        (409, Exit.CONFLICT),
        (412, Exit.CONFLICT),
        (413, Exit.INVALID),
        (418, Exit.INVALID),
        (422, Exit.INVALID),
        (500, Exit.UNAVAILABLE),
    ],
    ids=str,
)
def test_a_refusal_keeps_its_words_and_has_an_exit_code(status: int, code: Exit) -> None:
    problem = {"detail": "So it is.", "hint": "Do this.", "errors": [{"pointer": "/a", "message": "wrong"}]}
    with serving(lambda handler: handler.say(status, problem)) as (api, _), pytest.raises(Refusal) as refusal:
        api.get("/api/v1/dags")
    assert (refusal.value.code, refusal.value.message, refusal.value.hint) == (code, "So it is.", "Do this.")
    assert refusal.value.problems == [{"pointer": "/a", "message": "wrong"}]


@pytest.mark.parametrize("body", ["a page", ["a list"], None], ids=repr)
def test_an_answer_of_somebody_else_is_told_as_one(body: object) -> None:
    with serving(lambda handler: handler.say(404, body)) as (api, _), pytest.raises(Refusal, match="is it Runyard"):
        api.get("/api/v1/dags")


def test_items_are_collected_over_pages_as_far_as_they_are_wanted() -> None:
    pages: list[Answer] = [
        ok({"items": [1, 2], "next_cursor": "c1"}),
        ok({"items": [3], "next_cursor": "c2"}),
        ok({"items": [4], "next_cursor": None}),
    ]
    with serving(*pages) as (api, seen):
        assert api.items("/api/v1/runs", 10, state=["failed", "success"]) == [1, 2, 3, 4]
    assert [request["path"].partition("?")[2] for request in seen] == [
        "limit=10&state=failed&state=success",
        "limit=8&cursor=c1&state=failed&state=success",
        "limit=7&cursor=c2&state=failed&state=success",
    ]
    with serving(*pages) as (api, seen):
        assert api.items("/api/v1/runs", 2) == [1, 2]
    assert len(seen) == 1


def test_events_are_read_one_by_one_and_resumed_after_the_last() -> None:
    raw = (
        b': alive\n\nid: 1\nevent: run.queued\ndata: {"a": 1}\n\n'
        b'id: 2\nevent: run.success\ndata: {"a":\ndata: 2}\n\nid: 3\ndata: {'
    )
    with serving(lambda handler: handler.stream(raw)) as (api, seen):
        events = list(api.events("/events", "0"))
    assert [(event.id, event.kind, event.data) for event in events] == [
        ("1", "run.queued", {"a": 1}),
        ("2", "run.success", {"a": 2}),
    ]
    assert seen[0]["last-event-id"] == "0"
    assert seen[0]["accept"] == "text/event-stream"


def test_a_log_that_broke_off_goes_on_where_it_did() -> None:
    text = "one\ntwö\nthree\n"
    raw = text.encode()
    with serving(
        lambda handler: handler.break_off(raw[:5]),
        lambda handler: handler.break_off(raw[:9]),
        lambda handler: handler.stream(raw),
    ) as (api, seen):
        assert "".join(api.text("/log", follow=True)) == text
    assert {request["path"] for request in seen} == {"/log?follow=true"}


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        (("dags", "a"), "/api/v1/dags/a"),
        (("dags", "a b/ü?#%"), "/api/v1/dags/a%20b%2F%C3%BC%3F%23%25"),
        (("dags", ".."), "/api/v1/dags/%2E%2E"),
        (("dags", "manual__2026-01-01T00:00:00Z+x~y"), "/api/v1/dags/manual__2026-01-01T00:00:00Z+x~y"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_an_id_is_one_segment_whatever_it_contains(parts: tuple[str, ...], path: str) -> None:
    assert path_of(*parts) == path
    with serving(ok()) as (api, seen):
        api.get(path)
    assert seen[0]["path"] == path


@pytest.mark.parametrize(
    "url", ["http://me:s3cret@h", "http://me:s3/cret@h", "http://h:s3cret", "http://[s3cret", "http://"]
)
def test_an_address_with_a_password_is_refused_and_not_said(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("RUNYARD_API_URL", url)
    monkeypatch.setenv("RUNYARD_API_KEY", "k")
    with pytest.raises(Stop) as refused:
        client.connect()
    assert refused.value.code is Exit.USAGE
    assert "s3" not in f"{refused.value} {refused.value.hint}"
