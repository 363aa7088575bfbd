"""A real service for workers that speak HTTP: a database, the API on loopback, and a gate before it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from api.app import create_app, stop_streams
from api.auth import Scope, new_key
from api.settings import ApiSettings
from executors.conformance.world import RealClock, RealEntropy
from metastore import migrate
from metastore.commands.keys import create_key
from metastore.commands.workers import signing_key
from metastore.settings import DatabaseSettings
from metastore.sqlite import SqliteStore
from runyard import web
from runyard.conformance.ear import Ear
from runyard.conformance.gate import Gate
from scheduler.door import MetastoreDoor
from scheduler.metrics import SchedulerMetrics

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from fastapi import FastAPI

    from executors.base import Door
    from metastore.store import Store
    from runyard.conformance.live import Live
    from worker.protocol import Finish, Message, Start

#: Long enough that nothing runs out on a busy machine, where a scenario is not about that.
LEASE: Final = timedelta(seconds=60)
#: Between two heartbeats of a worker.
HEARTBEAT: Final = timedelta(seconds=1)


class Service:
    """One installation; scenarios take turns with it."""

    def __init__(self, folder: Path, *, url: str | None = None) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.clock = RealClock()
        self.entropy = RealEntropy()
        self.gate = Gate(lambda: self._port)
        self.lease = LEASE
        self.store: Store
        self.door: Door
        #: An API key with the scope ``work``, and what tickets are signed with.
        self.key = ""
        self.signing_key = b""
        #: Whose attempts these are at the moment.
        self.tenant: Live | None = None
        self._url = url or f"sqlite:///{folder / 'runyard.db'}"
        self._port = 0
        self._app: FastAPI | None = None
        self._server: web.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where workers find the API: before the gate."""
        return f"http://127.0.0.1:{self.gate.port}"

    async def start(self) -> None:
        """Bring everything up, where it is not."""
        if self._server is not None:
            return
        self.logs.mkdir(parents=True, exist_ok=True)
        if self._url.startswith("sqlite"):
            await asyncio.to_thread(migrate.upgrade, self._url)
        self.store = await self._open_store()
        self.signing_key = await self.store.write(signing_key)
        key = new_key(self.entropy)
        await self.store.write(
            create_key,
            key_id=key.key_id,
            name="workers",
            secret_hash=key.secret_hash,
            scopes=[Scope.WORK.value],
            dag_prefix=None,
            expires_at=None,
            actor="kit",
        )
        self.key = key.text
        await self.gate.open()
        await self.serve()

    async def stop(self) -> None:
        if self._server is not None:
            await self.gate.close()
            await self.fall_silent()
            await self.store.close()

    async def serve(self) -> None:
        """Have an API: at the start, and after an outage."""
        bound = web.listen("127.0.0.1", 0, ())
        self._port = bound.getsockname()[1]
        registry = CollectorRegistry()
        real = MetastoreDoor(
            self.store, lambda: (), lambda _: None, SchedulerMetrics(CollectorRegistry()), lease=self.lease
        )
        self.door = Tenants(self, real)
        self._app = create_app(
            store=self.store,
            clock=self.clock,
            entropy=self.entropy,
            settings=ApiSettings(log_dir=self.logs, worker_lease=self.lease, worker_heartbeat=HEARTBEAT),
            registry=registry,
            door=self.door,
        )
        await self._listen(bound)

    async def _listen(self, bound: socket.socket) -> None:
        self._server = web.Server(Ear(self._app, self))
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[bound]))
        await self._server.settled.wait()
        if not self._server.started:
            await self._serving

    async def fall_silent(self) -> None:
        """Have no API any more: nobody serves, and the metastore knows it."""
        if self._server is None or self._serving is None or self._app is None:
            return
        stop_streams(self._app)
        self._server.should_exit = True
        self.gate.cut()
        await self._serving
        self._server = self._serving = None

    async def have_lease(self, lease: timedelta) -> None:
        """Have leases of that length; workers learn it with their next heartbeat."""
        if lease != self.lease:
            self.lease = lease
            await self.fall_silent()
            await self.serve()

    async def _open_store(self) -> Store:
        settings = DatabaseSettings(self._url)
        if settings.dialect == "sqlite":
            return await SqliteStore.open(settings.path, clock=self.clock, entropy=self.entropy)
        from metastore.postgres import PostgresStore  # noqa: PLC0415  # its driver only where it is used

        return await PostgresStore.open(settings, clock=self.clock, entropy=self.entropy)


class Tenants:
    """The door of the metastore, with what the tenant wants to go wrong there."""

    def __init__(self, service: Service, real: Door) -> None:
        self._service = service
        self._real = real

    async def start(self, message: Start, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        self._trip(message["attempt_id"])
        answers = await self._real.start(message, placed_on, key_hash=key_hash)
        return [self._exchange(answer) for answer in answers]

    async def finish(self, message: Finish, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        self._trip(message["attempt_id"])
        return await self._real.finish(message, placed_on, key_hash=key_hash)

    def _trip(self, attempt_id: str) -> None:
        tenant = self._service.tenant
        if tenant is not None and attempt_id in tenant.poisoned:
            raise ZeroDivisionError("a bug that one row brings up")

    def _exchange(self, answer: Message) -> Message:
        tenant = self._service.tenant
        if answer["type"] != "task" or tenant is None or answer["attempt_id"] not in tenant.stand_ins:
            return answer
        return {**answer, "body": tenant.stand_ins[answer["attempt_id"]]}
