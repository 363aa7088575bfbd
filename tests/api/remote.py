"""A worker as the API sees it: what is queued for one, and the calls that it makes."""

from __future__ import annotations

import base64
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dag.tickets import sign
from metastore.commands.admission import Outlet
from metastore.commands.workers import signing_key
from metastore.queries import attempts
from tests.metastore.flow import Flow

if TYPE_CHECKING:
    import httpx

    from api.auth import NewKey
    from metastore.records import AttemptRecord
    from tests.api.service import Api

QUEUE: Final = Outlet("dramatiq", None, by_queue=True)
TASK: Final[dict[str, Any]] = {"command": ["true"], "executor": "dramatiq"}
_NUMBERS: Final = itertools.count(1)


def secret() -> str:
    """Return a token or a key of nobody else's."""
    return f"{next(_NUMBERS):043}"


def hex_id() -> str:
    return f"{next(_NUMBERS):032x}"


async def offer(api: Api, tasks: dict[str, Any] | None = None, **more: Any) -> str:
    """Queue an attempt of ``roll`` in a new run for whoever serves its queue; there must be a live worker."""
    dag_id = more.pop("dag_id", "dice")
    await api.put(dag_id, {"tasks": tasks or {"roll": TASK}})
    flow = Flow(api.store, api.clock)
    flow.outlet = QUEUE
    run = await flow.create(dag_id=dag_id, **{"run_id": f"r{next(_NUMBERS)}"} | more)
    return next(str(one.attempt_id) for one in await flow.begin(run) if one.labels["task_id"] == "roll")


async def admit(api: Api, task_id: str) -> str:
    """Queue what is ready now, and return the attempt of *task_id*."""
    flow = Flow(api.store, api.clock)
    flow.outlet = QUEUE
    return next(str(one.attempt_id) for one in await flow.admit() if one.labels["task_id"] == task_id)


async def ticket_of(api: Api, attempt_id: str) -> str:
    return sign(await api.store.write(signing_key), attempt_id)


async def record_of(api: Api, attempt_id: str) -> AttemptRecord:
    record = await api.store.read(attempts.by_id, attempt_id)
    assert record is not None
    return record


def tail(data: bytes, offset: int = 0) -> dict[str, Any]:
    return {"offset": offset, "data": base64.b64encode(data).decode()}


@dataclass
class Worker:
    """One worker, one process of it at a time."""

    api: Api
    key: NewKey
    worker_id: str = field(default_factory=hex_id)
    boot_id: str = field(default_factory=hex_id)
    token: str = field(default_factory=secret)
    keys: dict[str, str] = field(default_factory=dict)

    async def call(
        self, method: str, path: str, credential: str, *, raw: bytes | None = None, **more: Any
    ) -> httpx.Response:
        """Make one call of the protocol with any credential."""
        headers = {"Authorization": f"Bearer {credential}"}
        if raw is not None:
            headers["Content-Type"] = "application/octet-stream"
        async with self.api.client() as client:
            return await client.request(method, f"/worker/v1{path}", headers=headers, content=raw, **more)

    def registration(self, **more: Any) -> dict[str, Any]:
        return {
            "protocol": 1,
            "version": "0",
            "worker_id": self.worker_id,
            "boot_id": self.boot_id,
            "token": self.token,
            "name": "w",
            "host": "h",
            "pid": 1,
            "executor": "dramatiq",
            "queues": ["default"],
            "slots": 4,
        } | more

    async def register(self, **more: Any) -> httpx.Response:
        return await self.call("POST", "/workers", self.key.text, json=self.registration(**more))

    async def beat(self, wait: float = 0, **more: Any) -> httpx.Response:
        path = f"/workers/{self.worker_id}/heartbeat?wait={wait}"
        return await self.call("POST", path, self.token, json={"boot_id": self.boot_id} | more)

    async def leave(self, boot_id: str | None = None) -> httpx.Response:
        path = f"/workers/{self.worker_id}?boot_id={boot_id or self.boot_id}"
        return await self.call("DELETE", path, self.token)

    async def start(self, attempt_id: str, **more: Any) -> httpx.Response:
        key = self.keys.setdefault(attempt_id, secret())
        body = {"protocol": 1, "boot_id": self.boot_id, "key": key, "worker_id": self.worker_id} | more
        ticket = await ticket_of(self.api, attempt_id)
        return await self.call("POST", f"/attempts/{attempt_id}/start", ticket, json=body)

    async def beat_attempt(self, attempt_id: str, wait: float = 0, **more: Any) -> httpx.Response:
        path = f"/attempts/{attempt_id}/heartbeat?wait={wait}"
        return await self.call("POST", path, self.keys[attempt_id], json={"boot_id": self.boot_id} | more)

    async def log(self, attempt_id: str, offset: int, data: bytes) -> httpx.Response:
        return await self.call("PUT", f"/attempts/{attempt_id}/logs?offset={offset}", self.keys[attempt_id], raw=data)

    async def output(self, attempt_id: str, value: Any) -> httpx.Response:
        return await self.call("PUT", f"/attempts/{attempt_id}/output", self.keys[attempt_id], json=value)

    async def input(self, attempt_id: str, task_id: str) -> httpx.Response:
        return await self.call("GET", f"/attempts/{attempt_id}/inputs/{task_id}", self.keys[attempt_id])

    def end(self, **more: Any) -> dict[str, Any]:
        now = time.time()
        return {
            "boot_id": self.boot_id,
            "outcome": "success",
            "exit_code": 0,
            "signal": None,
            "error": "",
            "output": None,
            "log_size": 0,
            "log_dropped": 0,
            "started_at": now - 2,
            "ended_at": now - 1,
            "sent_at": now,
            "log": None,
        } | more

    async def finish(self, attempt_id: str, **more: Any) -> httpx.Response:
        path = f"/attempts/{attempt_id}/finish"
        return await self.call("POST", path, self.keys[attempt_id], json=self.end(**more))


async def a_worker(api: Api, **more: Any) -> Worker:
    """Return a worker that has registered."""
    worker = Worker(api, await api.key("work"))
    answer = await worker.register(**more)
    assert answer.status_code == 200, answer.text
    return worker


async def running(api: Api, tasks: dict[str, Any] | None = None, **more: Any) -> tuple[Worker, str]:
    """Return a worker and an attempt that it runs."""
    worker = await a_worker(api)
    attempt_id = await offer(api, tasks, **more)
    answer = await worker.start(attempt_id)
    assert answer.status_code == 200, answer.text
    return worker, attempt_id
