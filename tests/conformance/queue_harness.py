"""The harness of executors that go through a broker: a real one, real workers in processes of their own, a real API."""

from __future__ import annotations

import asyncio
import shutil
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from executors import registry
from executors.base import ExecutorConfig, HealthStatus
from runyard.conformance.live import Live
from runyard.conformance.service import Service
from tests.conformance.mediums import GARBAGE, PREFIX
from tests.conformance.workers import WorkerProcess
from tests.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from executors.base import Context, Executor
    from tests.conformance.mediums import Medium

#: How long running tasks get when their worker is asked to end.
_DRAIN = 3.0


class Site:
    """What all scenarios of one executor share: broker, service, and a worker, as long as nobody breaks it."""

    def __init__(self, folder: Path, library: str, medium: Medium, *, url: str | None = None) -> None:
        self.folder = folder
        self.library = library
        self.medium = medium
        self.service = Service(folder / "service", url=url)
        self.code_dir = folder / "code"
        self.code_dir.mkdir(parents=True)
        #: What http tasks may reach on this host.
        self.http_port = free_port()
        self._worker: WorkerProcess | None = None
        self._made: list[WorkerProcess] = []

    async def open(self) -> None:
        await asyncio.to_thread(self.medium.open)
        await self.service.start()

    async def close(self) -> None:
        for worker in self._made:
            await worker.kill()
        await self.service.stop()
        await asyncio.to_thread(self.medium.close)

    def make_worker(self, queues: Sequence[str], slots: int, *, python: str = sys.executable) -> WorkerProcess:
        environ = {
            "RUNYARD_BROKER_URL": self.medium.url,
            "RUNYARD_QUEUE_PREFIX": PREFIX,
            "RUNYARD_CODE_DIR": str(self.code_dir),
            "RUNYARD_TASK_PYTHON": python,
            "RUNYARD_WORKER_DRAIN": str(_DRAIN),
            "RUNYARD_HTTP_ALLOW": "127.0.0.1",
            "RUNYARD_HTTP_PORTS": str(self.http_port),
        }
        home = self.folder / f"worker-{len(self._made) + 1}"
        made = WorkerProcess(home, self.service, environ, queues=queues, slots=slots)
        self._made.append(made)
        return made

    async def borrow(self, slots: int) -> WorkerProcess:
        """Return the worker that is there, or a new one."""
        worker, self._worker = self._worker, None
        if worker is None:
            worker = self.make_worker(["default"], slots)
            try:
                await worker.start(self.library)
            except BaseException:
                await worker.kill()
                raise
        return worker

    def give_back(self, worker: WorkerProcess) -> None:
        self._worker = worker


class QueueHarness:
    """One executor with a worker that has four slots."""

    slots = 4

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.code_dir = site.code_dir
        self.http_port = site.http_port
        self.metastore = Live(site.service, shared=True)
        self.workers: list[WorkerProcess] = []
        #: What is on their disks is nobody's to clean up.
        self.dead: list[WorkerProcess] = []
        #: Messages that they held; the broker puts them back when it has not heard of them for a minute.
        self.orphans: list[str] = []
        #: Whether the worker is as it was.
        self.is_whole = True
        self.executor: Executor | None = None

    @property
    def secret(self) -> tuple[str, str]:
        return ("RUNYARD_API_KEY", self.site.service.key)

    async def open(self, context: Context) -> Executor:
        self.workers.append(await self.site.borrow(self.slots))
        return await self._start(context)

    async def _start(self, context: Context) -> Executor:
        home = self.site.folder
        executor = registry.make(
            ExecutorConfig(
                name=self.site.library,
                home=home,
                code_dir=self.code_dir,
                log_dir=self.site.service.logs,
                task_python=sys.executable,
                parallelism=self.slots,
                options={"broker_url": self.site.medium.url, "prefix": PREFIX},
            )
        )
        await executor.start(context)
        async with asyncio.timeout(20):
            while executor.health().status is not HealthStatus.OK:  # noqa: ASYNC110  a fact, not an event
                await asyncio.sleep(0.01)
        self.executor = executor
        return executor

    async def close(self) -> None:
        keep = self.workers[:1] if self.is_whole and not sys.exception() else []
        try:
            await asyncio.to_thread(self.site.medium.partition, on=False)
            if self.executor is not None:
                await self.executor.stop(drain=timedelta(0))
            await asyncio.to_thread(self.site.medium.clear)
        except BaseException:
            keep = []
            raise
        finally:
            for worker in self.workers:
                if worker not in keep:
                    await worker.kill()
        for worker in keep:
            self.site.give_back(worker)
        for entry in self.code_dir.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def log(self, attempt_id: str) -> bytes:
        return self.metastore.log(attempt_id)

    def leftovers(self) -> list[str]:
        found = [one for worker in self.workers for one in worker.leftovers()]
        return found or [f"message {one}" for one in self.site.medium.messages() if one not in self.orphans]

    def processes(self) -> list[int]:
        return [pid for worker in self.workers for pid in worker.processes()]

    # What may die

    async def kill_supervisor(self) -> None:
        for worker in self.workers:
            worker.kill_agents()

    async def kill_host(self) -> None:
        for worker in self.workers:
            worker.kill_hosts()

    async def kill_worker_process(self) -> None:
        self.is_whole = False
        if self.site.medium.keeps_what_the_dead_held:
            self.orphans = await asyncio.to_thread(self.site.medium.held)
        for worker in self.workers:
            worker.kill_feeder()
        await asyncio.gather(*(worker.start(self.site.library) for worker in self.workers))

    async def kill_node(self) -> None:
        self.is_whole = False
        await asyncio.gather(*(worker.kill() for worker in self.workers))
        self.orphans = await asyncio.to_thread(self.site.medium.held)
        self.dead += self.workers
        self.workers = []

    async def revive_node(self) -> None:
        self.workers, self.dead = self.dead, []
        await asyncio.gather(*(worker.start(self.site.library) for worker in self.workers))

    async def restart_scheduler(self, context: Context) -> Executor:
        old = self.executor
        new = await self._start(context)
        if old is not None:
            await old.stop(drain=timedelta(0))
        return new

    # What may get lost

    async def drop_connection(self) -> None:
        self.site.medium.cut()
        await asyncio.sleep(0.02)

    async def duplicate_delivery(self, attempt_id: str) -> None:
        await self.deliver(attempt_id, self.metastore.ticket(attempt_id))

    async def drop_delivery(self, attempt_id: str) -> None:
        await asyncio.to_thread(self.site.medium.drop, "default", attempt_id)

    async def deliver(self, attempt_id: str, ticket: str) -> None:
        await asyncio.to_thread(self.site.medium.send, "default", attempt_id, ticket)

    async def deliver_garbage(self) -> None:
        for data in GARBAGE:
            await asyncio.to_thread(self.site.medium.send_raw, "default", data)

    async def restart_infra(self) -> None:
        await asyncio.to_thread(self.site.medium.restart)

    async def flush_infra(self) -> None:
        await asyncio.to_thread(self.site.medium.flush)

    async def partition_infra(self, on: bool) -> None:  # noqa: FBT001  # on or off is all it says
        await asyncio.to_thread(self.site.medium.partition, on=on)

    async def throttle_infra(self, on: bool) -> None:  # noqa: FBT001  # as above
        await asyncio.to_thread(self.site.medium.throttle, on=on)

    # Workers

    async def run_worker(self, queues: Sequence[str], slots: int) -> str:
        worker = self.site.make_worker(queues, slots)
        self.workers.append(worker)
        return (await worker.start(self.site.library)).worker_id

    async def stop_workers(self) -> None:
        self.is_whole = False
        for worker in self.workers:
            worker.stop()
        await asyncio.gather(*(worker.ended() for worker in self.workers))

    async def drain_workers(self, grace: float) -> None:
        assert grace <= _DRAIN, "what they get is set when they start"
        await self.stop_workers()

    # What may be broken about a host

    def peak_memory(self) -> int:
        return sum(worker.peak_memory() for worker in self.workers)

    async def break_interpreter(self, context: Context) -> Executor:
        del context
        await self.stop_workers()
        worker = self.site.make_worker(["default"], self.slots, python="/no/such/python")
        self.workers.append(worker)
        await worker.start(self.site.library)
        assert self.executor is not None
        return self.executor
