"""An API process without its web framework: the calls of workers and of clients, answered as the routers answer them.

What renews leases, says that it serves, and starts and finishes attempts is the product's own; what is missing is HTTP
itself.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry

from api.credentials import hash_of
from api.heartbeats import Heartbeats, WorkerBeat
from api.presence import Presence
from api.settings import ApiSettings
from dag.errors import BadCredential, Conflict, Forbidden, Gone, Invalid, NotFound, Unavailable
from dag.outcomes import Ended
from dag.tickets import holds
from metastore.commands.attempts import End, end_attempt
from metastore.commands.workers import Registration, leave_worker, register_worker, signing_key
from scheduler.attendant import Attendant
from worker.protocol import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence
    from datetime import timedelta

    from executors.base import Executor
    from tests.simulation.hosts import SimProcess
    from tests.simulation.requests import Requests
    from tests.simulation.store import SimStore

_STATUS: Final = (
    (NotFound, 404), (Gone, 410), (BadCredential, 401), (Forbidden, 403), (Conflict, 409), (Invalid, 422),
    (Unavailable, 503),
)  # fmt: skip
_WORKER: Final = re.compile(r"/workers/([0-9a-f]{32})(/heartbeat)?\Z")
_ATTEMPT: Final = re.compile(r"/attempts/([0-9a-f-]{36})/(start|finish)\Z")

Reply = tuple[int, dict[str, Any]]


class ApiProcess:
    """One process of the API."""

    def __init__(
        self, process: SimProcess, store: SimStore, executors: Sequence[Executor], lease: timedelta, requests: Requests
    ) -> None:
        self._process = process
        self._store = store
        self._requests = requests
        registry = CollectorRegistry()
        self._settings = ApiSettings(log_dir=Path("/sim"), worker_lease=lease, executors=("local", "dramatiq"))
        self._attendant = Attendant(
            store=store,
            executors=executors,
            clock=process.clock,
            entropy=process.entropy,
            registry=registry,
            lease=lease,
        )
        self._heartbeats = Heartbeats(store, process.clock, self._settings, registry)
        self._note_renewals()
        self._presence = Presence(store, lease)
        self._key = b""

    def _note_renewals(self) -> None:
        shared: Any = self._heartbeats._workers
        renew, site = shared.do, self._process.site

        async def noted(beat: WorkerBeat) -> Any:
            began = site.loop.time()
            beaten = await renew(beat)
            site.renewals.setdefault(beat.place, []).append((began, site.loop.time()))
            return beaten

        shared.do = noted

    async def run(self) -> None:
        """Serve, once the metastore has answered."""
        while True:
            try:
                await self._attendant.start()
                self._key = await self._store.write(signing_key)
                break
            except Unavailable:
                await asyncio.sleep(1)
        await self._presence.start()
        self._process.service = self
        self._process.site.network.serve(self._process, self.answer)

    async def stop(self, drain: timedelta) -> None:
        """Take no more requests; those that are there get *drain* to be answered."""
        self._process.site.network.withdraw(self._process)
        self._presence.cease()
        await asyncio.sleep(drain.total_seconds())
        await self._attendant.stop()

    async def answer(self, method: str, *question: Any) -> Reply:
        """Answer a request: of a worker, or of a client (its method is its word)."""
        if method in ("POST", "DELETE", "PUT", "GET"):
            call = self._worker_call(method, *question)
        else:
            call = self._requests.answer(self._store, self._process, method, *question)
        return await self._answered(f"{method} {question[0]}", call)

    async def _answered(self, what: str, call: Awaitable[Reply]) -> Reply:
        try:
            return await call
        except Exception as error:  # noqa: BLE001  # as the real one, it answers whatever happens
            for kind, status in _STATUS:
                if isinstance(error, kind):
                    return status, {"code": _code(error), "detail": str(error)}
            self._process.site.note_error(f"500 to {what}: {error!r}")
            return 500, {"code": "internal", "detail": type(error).__name__}

    async def _worker_call(self, method: str, path: str, secret: str, body: bytes) -> Reply:
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        document: dict[str, Any] = json.loads(body) if body else {}
        if method == "POST" and parts.path == "/workers":
            return 200, await self._register(document)
        if found := _WORKER.match(parts.path):
            if method == "DELETE":
                await self._store.write(
                    leave_worker, found[1], token_hash=hash_of(secret), boot_id=query["boot_id"]
                )  # fmt: skip
                return 204, {}
            return 200, await self._beat(found[1], secret, document, float(query["wait"]))
        if found := _ATTEMPT.match(parts.path):
            if found[2] == "start":
                return await self._start(found[1], secret, document)
            return await self._finish(found[1], secret, document)
        if method == "POST" and parts.path == "/attempts":
            return 200, await self._move(document)
        if parts.path.endswith("/logs"):
            return 200, {"next_offset": int(query["offset"])}
        raise NotFound("route", path)

    def _leased(self) -> dict[str, Any]:
        return {"lease": self._settings.told_lease, "heartbeat": self._settings.told_heartbeat}

    async def _register(self, body: dict[str, Any]) -> dict[str, Any]:
        worker = Registration(
            worker_id=body["worker_id"],
            boot_id=body["boot_id"],
            boot_number=body["boot_number"],
            token_hash=hash_of(body["token"]),
            name=body["name"],
            host=body["host"],
            pid=body["pid"],
            version=body["version"],
            executor=body["executor"],
            queues=tuple(body["queues"]),
            slots=body["slots"],
            held=tuple(one["attempt_id"] for one in body["attempts"]),
        )
        left = await self._store.write(register_worker, worker, self._settings.worker_lease)
        lost = []
        for attempt_id in left:
            end = End(attempt_id=attempt_id, ended=Ended.LOST, cause="worker_lost", error="its process is gone")
            earlier = (worker.worker_id, worker.boot_id)
            noted = await self._store.write(end_attempt, end, actor="key:worker", earlier_boot_of=earlier)
            if noted.accepted:
                lost.append(attempt_id)
        return {"worker_id": worker.worker_id, "protocol": PROTOCOL, "lost": lost} | self._leased()

    async def _beat(self, worker_id: str, secret: str, body: dict[str, Any], wait: float) -> dict[str, Any]:
        began = self._process.loop.time()
        beat = WorkerBeat(worker_id, hash_of(secret), body["boot_id"], body["draining"])
        stopping = {one["attempt_id"]: one["stopping"] for one in body["attempts"]}
        beaten = await self._heartbeats.beat(beat, stopping, wait)
        self._process.site.beats.setdefault(worker_id, []).append(began)
        directives = [
            {"attempt_id": attempt_id, "directive": "cancel", "reason": reason, "grace": 3600.0}
            for attempt_id, reason in beaten.asked.items()
        ]
        return self._leased() | {"drain": beaten.drain, "directives": directives}

    async def _move(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer several starts and ends, each by itself."""
        self._process.site.weather.count("http.together")
        calls = [self._start(one["attempt_id"], one["ticket"], one) for one in body["starts"]]
        calls += [self._finish(one["attempt_id"], one["key"], one) for one in body["finishes"]]
        answers = await asyncio.gather(*(self._answered("one of several", call) for call in calls))
        told = [{"status": status, "answer": document, "retry_after": None} for status, document in answers]
        return {"starts": told[: len(body["starts"])], "finishes": told[len(body["starts"]) :]}

    async def _start(self, attempt_id: str, ticket: str, body: dict[str, Any]) -> Reply:
        if not holds(self._key, attempt_id, ticket):
            raise BadCredential("This is not the ticket of the attempt.")
        answers = await self._attendant.door.start(
            {"type": "start", "attempt_id": attempt_id, "boot_id": body["boot_id"]},
            body["worker_id"],
            key_hash=hash_of(body["key"]),
        )
        stop = None
        for message in answers:
            if message["type"] == "cancel":
                stop = {"reason": message["reason"], "grace": message["grace"]}
            elif message["type"] == "refused":
                code = "attempt_conflict" if message["code"] == "conflict" else "attempt_gone"
                return (409 if message["code"] == "conflict" else 410), {"code": code, "detail": message["detail"]}
            elif message["type"] == "task":
                return 200, {"task": message["body"], "stop": stop} | self._leased()
        raise TypeError(answers)

    async def _finish(self, attempt_id: str, key: str, body: dict[str, Any]) -> Reply:
        now = self._process.clock.now().timestamp()
        shift = now - body["sent_at"]
        ended_at = min(now, max(0.0, body["ended_at"] + shift))
        names = ("boot_id", "outcome", "exit_code", "signal", "error", "output", "log_size", "log_dropped")
        message: Any = {
            "type": "finish",
            "attempt_id": attempt_id,
            **{name: body[name] for name in names},
            "started_at": min(ended_at, max(0.0, body["started_at"] + shift)),
            "ended_at": ended_at,
            "more": False,
        }
        answers = await self._attendant.door.finish(message, None, key_hash=hash_of(key))
        accepted = any(told["type"] == "finished" and told["accepted"] for told in answers)
        return 200, {"accepted": accepted, "next_offset": None}


def _code(error: Exception) -> str:
    if isinstance(error, NotFound):
        return "worker_unknown" if error.kind == "worker" else "not_found"
    return error.code if isinstance(error, Gone) else type(error).__name__
