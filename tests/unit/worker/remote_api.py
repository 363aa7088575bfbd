"""A small API for remote agents: real HTTP, the rules of the contract, and switches for everything that goes wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from tests.unit.worker.bodies import a_body

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "runyard_key_of_the_test"
CAP = 64 * 1024 * 1024 + 1024


def ticket_of(attempt_id: str) -> str:
    return "rt1." + hashlib.sha256(attempt_id.encode()).hexdigest()[:43]


@dataclass
class Row:
    """An attempt."""

    attempt_id: str
    body: dict[str, Any]
    state: str = "queued"
    boot_id: str = ""
    key: str = ""
    stop: str | None = None
    finish: dict[str, Any] = field(default_factory=dict)
    log: bytearray = field(default_factory=bytearray)
    #: Every end that was sent, accepted or not.
    ends: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Reply:
    """What a request is answered with."""

    status: int
    document: Any
    kind: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def data(self) -> bytes:
        return self.document if isinstance(self.document, bytes) else json.dumps(self.document).encode()

    @property
    def content_type(self) -> str:
        return self.kind or ("application/json" if self.status < 400 else "application/problem+json")


def problem(status: int, code: str, detail: str = "", **more: Any) -> Reply:
    return Reply(status, {"code": code, "title": code, "detail": detail, "hint": "", **more})


HTML = Reply(200, b"<html>Welcome to the hotel</html>", "text/html")
ODD = Reply(200, {"hello": "world"})


class Api:
    """The state, the rules, the switches."""

    def __init__(self, lease: float = 30.0, heartbeat: float = 2.0) -> None:
        self.lock = threading.Condition()
        self.lease = lease
        self.heartbeat = heartbeat
        self.rows: dict[str, Row] = {}
        self.worker: dict[str, Any] = {}
        self.registrations: list[dict[str, Any]] = []
        self.beats: list[dict[str, Any]] = []
        self.left = False
        self.drain = False
        self.calls: Counter[str] = Counter()
        #: Answers to give instead, by call, before anything is done.
        self.instead: dict[str, list[Reply]] = {}
        #: How many answers of a call are lost after it was done.
        self.lose: Counter[str] = Counter()
        self.delay: dict[str, float] = {}
        #: The most bytes of a log that are kept of one request; the rest comes again.
        self.takes = 1 << 30
        self._server: _Server | None = None
        self.port = 0
        self.start()

    # The server

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Be away: nothing listens, and connections that there were are reset."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.drop_all()
            self._server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # What a test does

    def queue(self, **body: Any) -> str:
        attempt_id = str(uuid4())
        with self.lock:
            self.rows[attempt_id] = Row(attempt_id, dict(a_body(**body)))
        return attempt_id

    def cancel(self, attempt_id: str, reason: str = "user") -> None:
        with self.lock:
            row = self.rows[attempt_id]
            if row.state == "queued":
                row.state = "cancelled"
            row.stop = reason
            self.lock.notify_all()

    def give_up(self) -> None:
        """Do what happens when a lease is over."""
        with self.lock:
            for row in self.rows.values():
                if row.state == "running":
                    row.state = "lost"

    def until(self, condition: Callable[[], object], what: str, within: float = 30.0) -> None:
        end = time.monotonic() + within
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {within:g} s: {what}")
            time.sleep(0.01)

    def row(self, attempt_id: str) -> Row:
        return self.rows[attempt_id]

    def ended(self, attempt_id: str, within: float = 30.0) -> Row:
        row = self.rows[attempt_id]
        self.until(lambda: row.finish, f"an end of {attempt_id}, which is {row.state}", within)
        return row

    def whole(self, attempt_id: str, within: float = 30.0) -> bytes:
        """Return the log, once all of it is there."""
        row = self.ended(attempt_id, within)
        self.until(lambda: len(row.log) == row.finish["log_size"], "its log is whole", within)
        return bytes(row.log)

    # The rules

    def answer(self, method: str, path: str, query: dict[str, str], bearer: str, body: bytes) -> tuple[str, Reply]:
        parts = path.removeprefix("/worker/v1").strip("/").split("/")
        if parts == ["attempts"]:
            return self._together(bearer, body)
        name = {"POST workers": "register", "DELETE workers": "leave"}.get(f"{method} {parts[0]}", "")
        if len(parts) == 3:
            name = {"heartbeat": "beat", "logs": "log"}.get(parts[2], parts[2])
        with self.lock:
            self.calls[name] += 1
            if self.instead.get(name):
                return name, self.instead[name].pop(0)
        if name == "log":
            return name, self._log(parts[1], bearer, int(query["offset"]), body)
        document = json.loads(body) if body else {}
        if name == "register":
            return name, self._register(bearer, document)
        if name == "beat":
            return name, self._beat(parts[1], bearer, document, float(query["wait"]))
        if name == "leave":
            self.left = True
            return name, Reply(204, b"")
        if name == "start":
            return name, self._start(parts[1], bearer, document)
        return name, self._finish(parts[1], bearer, document)

    def _together(self, bearer: str, body: bytes) -> tuple[str, Reply]:
        """Answer several starts and ends, each as if it came by itself."""
        with self.lock:
            self.calls["together"] += 1
            if self.instead.get("together"):
                return "together", self.instead["together"].pop(0)
        if bearer != KEY:
            return "together", problem(401, "unauthenticated", "A valid API key is needed.")
        document = json.loads(body)
        told: dict[str, list[dict[str, Any]]] = {}
        for name, word, credential in (("starts", "start", "ticket"), ("finishes", "finish", "key")):
            told[name] = []
            for one in document[name]:
                path = f"/worker/v1/attempts/{one['attempt_id']}/{word}"
                _, reply = self.answer("POST", path, {}, one[credential], json.dumps(one).encode())
                told[name].append({"status": reply.status, "answer": reply.document, "retry_after": None})
        return "together", Reply(200, told)

    def leased(self) -> dict[str, Any]:
        return {"lease": self.lease, "heartbeat": self.heartbeat, "server_time": "2026-01-02T00:00:00Z"}

    def _register(self, bearer: str, document: dict[str, Any]) -> Reply:
        if bearer != KEY:
            return problem(401, "unauthenticated", "A valid API key is needed.")
        with self.lock:
            held = {one["attempt_id"] for one in document["attempts"]}
            lost = [
                row
                for row in self.rows.values()
                if row.state == "running" and row.boot_id != document["boot_id"] and row.attempt_id not in held
            ]
            for row in lost:
                row.state = "lost"
            self.worker = document
            self.registrations.append(document)
            self.left = False
            self.lock.notify_all()
        return Reply(200, {"worker_id": document["worker_id"], "protocol": 1, "lost": [], **self.leased()})

    def _beat(self, worker_id: str, bearer: str, document: dict[str, Any], wait: float) -> Reply:
        if worker_id != self.worker.get("worker_id"):
            return problem(404, "worker_unknown", "There is no such worker.")
        if bearer != self.worker["token"] or document["boot_id"] != self.worker["boot_id"]:
            return problem(410, "worker_superseded", "A newer process of this worker has registered.")
        stopping = {one["attempt_id"]: one["stopping"] for one in document["attempts"]}
        until = time.monotonic() + wait
        with self.lock:
            self.beats.append(document)
            while not (news := self._directives(document["boot_id"], stopping)) and time.monotonic() < until:
                self.lock.wait(min(0.05, max(until - time.monotonic(), 0)))
        return Reply(200, {**self.leased(), "drain": self.drain, "directives": news})

    def _directives(self, boot_id: str, stopping: dict[str, str | None]) -> list[dict[str, Any]]:
        return [
            {"attempt_id": row.attempt_id, "directive": "cancel", "reason": row.stop, "grace": None}
            for row in self.rows.values()
            if row.state == "running"
            and row.boot_id == boot_id
            and row.stop
            and stopping.get(row.attempt_id) != row.stop
        ]

    def _start(self, attempt_id: str, bearer: str, document: dict[str, Any]) -> Reply:
        row = self.rows.get(attempt_id)
        if bearer != ticket_of(attempt_id):
            return problem(401, "bad_credential", "The ticket is not the one of this attempt.")
        if row is None:
            return problem(404, "not_found", "There is no such attempt.")
        with self.lock:
            if document["worker_id"] != self.worker.get("worker_id"):
                return problem(404, "worker_unknown", "There is no such worker.")
            if row.state == "queued":
                row.state, row.boot_id, row.key = "running", document["boot_id"], document["key"]
            elif row.state == "running" and row.boot_id != document["boot_id"]:
                return problem(409, "attempt_conflict", "Another supervisor has started it.")
            elif row.state != "running":
                return problem(410, "attempt_gone", f"It is {row.state}.")
        stop = None if row.stop is None else {"reason": row.stop, "grace": 1.0}
        return Reply(200, {"task": row.body, "stop": stop, **self.leased()})

    def _log(self, attempt_id: str, bearer: str, offset: int, body: bytes) -> Reply:
        row = self.rows[attempt_id]
        if bearer != row.key:
            return problem(401, "bad_credential", "Not the key of this attempt.")
        if len(body) > 1024 * 1024 or offset + len(body) > CAP:
            return problem(413, "log_too_long")
        with self.lock:
            if not self._append(row, offset, body):
                return problem(409, "log_gap", next_offset=len(row.log))
            return Reply(200, {"next_offset": len(row.log)})

    def _append(self, row: Row, offset: int, body: bytes) -> bool:
        if offset > len(row.log):
            return False
        row.log += body[len(row.log) - offset :][: self.takes]
        return True

    def _finish(self, attempt_id: str, bearer: str, document: dict[str, Any]) -> Reply:
        row = self.rows[attempt_id]
        if bearer != row.key:
            return problem(401, "bad_credential", "Not the key of this attempt.")
        with self.lock:
            row.ends.append(document)
            log = document["log"]
            if log is not None:
                self._append(row, log["offset"], base64.b64decode(log["data"], validate=True))
            if row.state == "running" and row.boot_id == document["boot_id"]:
                row.state = document["outcome"]
                row.finish = document
            next_offset = None if log is None else len(row.log)
            return Reply(200, {"accepted": bool(row.finish), "next_offset": next_offset})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], api: Api) -> None:
        self.api = api
        self.connections: set[Any] = set()
        super().__init__(address, _Handler)

    def drop_all(self) -> None:
        for connection in list(self.connections):
            with suppress(OSError):  # it was closed already
                connection.shutdown(2)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that a test cut is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def _serve(self) -> None:
        api = self.server.api
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        bearer = self.headers["Authorization"].removeprefix("Bearer ")
        name, reply = api.answer(self.command, url.path, query, bearer, body)
        time.sleep(api.delay.get(name, 0))
        if api.lose[name]:
            api.lose[name] -= 1
            self.close_connection = True
            return
        self.send_response_only(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.data)))
        for header, value in reply.headers:
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(reply.data)
        self.wfile.flush()

    do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  the names that http.server looks for
