"""A thousand running attempts whose supervisors are heard of: what that costs the API.

python -m bench.heartbeats
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx

from bench.client import Client
from bench.command import run_benchmark
from bench.figures import Goal, Report, percentile
from bench.load import Job, drive, steady
from bench.processes import cpu_seconds
from bench.running import wait_ready
from tests.brokers import RedisServer
from tests.system.service import Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.command import Options, Servers

ATTEMPTS = 1000
EVERY = 10.0
SECONDS = 30.0
_BOOT = "b" * 32


def measure(options: Options) -> Sequence[Report]:
    """Measure on each database that was asked for."""
    with options.servers() as servers, ExitStack() as stack:
        (servers.folder / "redis").mkdir()
        redis = stack.enter_context(RedisServer(servers.folder / "redis"))
        return [_measure(options, servers, database, redis) for database in options.databases]


def _measure(options: Options, servers: Servers, database: str, redis: RedisServer) -> Report:
    report = Report("heartbeats", database)
    environ = {"RUNYARD_EXECUTORS": "dramatiq", "RUNYARD_BROKER_URL": redis.url, "RUNYARD_LOG_LEVEL": "warning"}
    for _ in range(options.repeat):
        for name, workers in (("50 workers with 20 attempts each", 50), ("1,000 supervisors of one attempt", 0)):
            redis.flushall()
            made = Service(servers.home(), {**environ, **servers.database(database)})
            try:
                made.start("--port", "0")
                wait_ready(made.url)
                asyncio.run(_beat(report, made, redis, name, workers))
            finally:
                made.end()
    report.note(
        f"{ATTEMPTS} attempts are running; every supervisor is heard of every {EVERY:g} s, spread evenly, without long "
        "poll; heartbeats wait up to 0.1 s for each other and share a commit; API and scheduler are one process here",
        "CPU beyond that of the same service without heartbeats",
    )
    return report


async def _beat(report: Report, made: Service, redis: RedisServer, name: str, workers: int) -> None:
    client = Client(made.url, made.key)
    fleet = Protocol(made.url, made.ask("keys", "create", "w", "--scope", "work")["key"])
    # One worker takes all credits where supervisors are alone: they are offered only what somebody registered has.
    places = [await fleet.register(ATTEMPTS // workers if workers else ATTEMPTS) for _ in range(workers or 1)]
    client.define("many", {f"t{n:04}": {"command": ["true"]} for n in range(ATTEMPTS)})
    run = client.call("POST", "/dags/many/runs", {})
    path = f"/dags/many/runs/{run['run_id']}/tasks"
    wait_for(lambda: sum(task["state"] == "queued" for task in client.items(path)) == ATTEMPTS, 60)
    wait_for(lambda: len(_offers(redis)) == ATTEMPTS, 60)
    offers = _offers(redis)
    queued = list(offers)
    mine: dict[str, list[str]] = {place: [] for place in places}
    for number, attempt_id in enumerate(queued):
        place = places[number % len(places)]
        await fleet.start(attempt_id, offers[attempt_id], place if workers else None)
        mine[place].append(attempt_id)
    assert made.process is not None
    pid = made.process.pid
    held = {place: fleet.worker_beat(place, mine[place]) for place in places}
    beats = list(held.values()) if workers else [fleet.attempt_beat(attempt_id) for attempt_id in queued]
    moments = steady(len(beats) / EVERY, EVERY + SECONDS)
    job = Job(url=f"{made.url}/worker/v1", turns=beats, moments=moments, expected=200, connections=8)
    idle = await _cpu(pid, 5.0)
    driven = asyncio.get_running_loop().run_in_executor(None, drive, job)
    await asyncio.sleep(EVERY)
    used = await _cpu(pid, SECONDS - 2)
    outcome = await driven
    if outcome.errors:
        raise RuntimeError(f"{name}: {outcome.errors}")
    report.add(f"{name}: CPU of the API", "% of a core", 100 * (used - idle), Goal(10))
    report.add(f"{name}: heartbeats", "/s", len(beats) / EVERY)
    report.add(f"{name}: answer, median", "ms", percentile(outcome.latencies_ms, 50))
    report.add(f"{name}: answer, p99", "ms", percentile(outcome.latencies_ms, 99))
    client.close()


async def _cpu(pid: int, seconds: float) -> float:
    before, began = cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - began)


def _offers(redis: RedisServer) -> dict[str, str]:
    """Return the tickets of the attempts that the broker has."""
    with redis.client() as client:
        found = [json.loads(value)["kwargs"] for key in client.keys("*.msgs") for value in client.hvals(key)]
    return {one["attempt_id"]: one["ticket"] for one in found}


class Protocol:
    """The calls of a supervisor, as many at once as one likes."""

    def __init__(self, url: str, key: str) -> None:
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
        self._http = httpx.AsyncClient(base_url=f"{url}/worker/v1", timeout=30, limits=limits)
        self._key = key
        self._secrets: dict[str, str] = {}

    async def _post(self, path: str, credential: str, body: dict[str, Any]) -> Any:
        answer = await self._http.post(path, json=body, headers={"Authorization": f"Bearer {credential}"})
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text}")
        return answer.json()

    async def register(self, slots: int) -> str:
        worker_id = secrets.token_hex(16)
        token = self._secrets[worker_id] = secrets.token_urlsafe(32)
        who = {"worker_id": worker_id, "boot_id": _BOOT, "token": token, "name": "w", "host": "h", "pid": 1}
        what = {"protocol": 1, "version": "bench", "executor": "dramatiq", "queues": ["default"], "slots": slots}
        await self._post("/workers", self._key, {**who, **what, "attempts": []})
        return worker_id

    async def start(self, attempt_id: str, ticket: str, worker_id: str | None) -> None:
        key = self._secrets[attempt_id] = secrets.token_urlsafe(32)
        body = {"boot_id": _BOOT, "key": key, "worker_id": worker_id, "protocol": 1}
        await self._post(f"/attempts/{attempt_id}/start", ticket, body)

    def worker_beat(self, worker_id: str, attempts: list[str]) -> tuple[str, str, str]:
        """Return path, credential and body of a heartbeat."""
        held = [{"attempt_id": one, "phase": "running", "stopping": None} for one in attempts]
        body = {"boot_id": _BOOT, "draining": False, "attempts": held}
        return f"/workers/{worker_id}/heartbeat", f"Bearer {self._secrets[worker_id]}", json.dumps(body)

    def attempt_beat(self, attempt_id: str) -> tuple[str, str, str]:
        """Return path, credential and body of a heartbeat."""
        body = json.dumps({"boot_id": _BOOT, "stopping": None})
        return f"/attempts/{attempt_id}/heartbeat", f"Bearer {self._secrets[attempt_id]}", body


if __name__ == "__main__":
    run_benchmark(measure)
