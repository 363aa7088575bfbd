"""The harness that has the executor checked: ``pytest --executor-harness=runyard_folder.harness:Harness``."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from executors.base import Context
from executors.conformance.world import command, is_alive, pids
from metastore.queries.workers import workers
from runyard.conformance.live import Live
from runyard.conformance.service import Service
from runyard_folder import FolderExecutor, place
from worker import linux


class Process:
    """A worker in a home of its own."""

    def __init__(self, harness: "Harness", name: str, queues: list[str], slots: int) -> None:
        self.name = name
        self.home = harness.folder / name
        self._service = harness.service
        self._args = [sys.executable, "-m", "runyard_folder.worker", name, *queues]
        self._environ = os.environ | {
            "RUNYARD_HOME": str(self.home),
            "RUNYARD_FOLDER": str(harness.box),
            "RUNYARD_CODE_DIR": str(harness.code_dir),
            "RUNYARD_API_URL": harness.service.url,
            "RUNYARD_API_KEY": harness.service.key,
            "RUNYARD_WORKER_CONCURRENCY": str(slots),
            "RUNYARD_WORKER_DRAIN": "3",
        }

    async def start(self) -> str:
        """Start it; return its id once it serves."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(self._args, env=self._environ, stdout=log, stderr=log)
        async with asyncio.timeout(60):
            while True:
                known = await self._service.store.read(workers, self._service.clock.now(), "", 100)
                for one in known:
                    if one.name == self.name and one.state == "live":
                        return one.worker_id
                assert self._process.poll() is None, (self.home / "log").read_text()
                await asyncio.sleep(0.05)

    async def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            while self._process.poll() is None or self.agents():
                await asyncio.sleep(0.05)

    def kill_feeder(self) -> None:
        self._process.kill()
        self._process.wait()

    async def kill(self) -> None:
        self.kill_feeder()
        while found := self.processes():
            for pid in found:
                linux.kill(pid)
            await asyncio.sleep(0.01)

    def agents(self) -> list[int]:
        """Return the agents and zygotes of this home."""
        return [pid for pid in pids() if os.fsencode(self.home) in command(pid) and b"/worker/" in command(pid)]

    def processes(self) -> list[int]:
        found = {pid for agent in self.agents() for pid in (agent, *linux.descendants(agent))}
        return [pid for pid in found if is_alive(pid)]

    def leftovers(self) -> list[str]:
        kept = ("outcomes", "spare")
        found = [one.name for one in (self.home / "agent" / "attempts").glob("*")]
        own = {pid for agent in self.agents() for pid in (agent, *linux.descendants(agent)[:1])}
        tasks = [f"process {pid}" for pid in self.processes() if pid not in own]
        return tasks + [name for name in found if name.partition(".")[0] not in kept]


class Harness:
    """One executor on a folder of its own, with one worker."""

    slots = 4

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.box, self.scratch, self.code_dir = (folder / name for name in ("box", "scratch", "code"))
        for each in (self.box, self.scratch, self.code_dir):
            each.mkdir()
        # Its workers speak HTTP, so that a real API has to be there.
        self.service = Service(folder / "service")
        self.metastore = Live(self.service)
        self.workers: list[Process] = []

    @property
    def secret(self) -> tuple[str, str]:
        return ("RUNYARD_API_KEY", self.service.key)

    async def open(self, context: Context) -> FolderExecutor:
        await self.run_worker(["default"], self.slots)
        return await self.restart_scheduler(context)

    async def close(self) -> None:
        for worker in self.workers:
            await worker.kill()

    def log(self, attempt_id: str) -> bytes:
        return self.metastore.log(attempt_id)

    def leftovers(self) -> list[str]:
        files = [str(file) for form in ("*/new/*", "*/taken/*/*") for file in self.box.glob(form)]
        return files + [one for worker in self.workers for one in worker.leftovers()]

    # What can happen to it: each of these is a hook, and makes more scenarios apply.

    def processes(self) -> list[int]:
        return [pid for worker in self.workers for pid in worker.processes()]

    async def run_worker(self, queues: list[str], slots: int) -> str:
        self.workers.append(Process(self, f"worker-{len(self.workers) + 1}", queues, slots))
        return await self.workers[-1].start()

    async def stop_workers(self) -> None:
        await asyncio.gather(*(worker.end() for worker in self.workers))

    async def drain_workers(self, grace: float) -> None:
        await self.stop_workers()

    async def restart_scheduler(self, context: Context) -> FolderExecutor:
        executor = FolderExecutor("folder", self.box)
        await executor.start(context)
        return executor

    async def kill_supervisor(self) -> None:
        for pid in {pid for worker in self.workers for pid in worker.agents()}:
            linux.kill(pid)

    async def kill_worker_process(self) -> None:
        for worker in self.workers:
            worker.kill_feeder()
            await worker.start()

    async def duplicate_delivery(self, attempt_id: str) -> None:
        await self.deliver(attempt_id, self.metastore.ticket(attempt_id))

    async def deliver(self, attempt_id: str, ticket: str) -> None:
        place(self.box / "default", attempt_id, ticket)

    async def drop_delivery(self, attempt_id: str) -> None:
        (self.box / "default" / "new" / attempt_id).unlink()

    async def flush_infra(self) -> None:
        for queue in self.box.iterdir():
            shutil.rmtree(queue)

    async def partition_infra(self, on: bool) -> None:
        away = self.box.with_name("away")
        self.box.rename(away) if on else away.rename(self.box)
