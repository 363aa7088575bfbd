"""Worker processes as an operator starts them: ``runyard worker`` in a home of its own, without a database."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from executors.conformance.world import command, is_alive, marked, pids
from metastore.queries.workers import workers as all_workers
from worker import linux
from worker.environment import MARKER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metastore.queries.workers import WorkerRecord
    from runyard.conformance.service import Service

RUNYARD = Path(sys.executable).with_name("runyard")
_READY_WITHIN = 60.0
_MOST = 1_000


class WorkerProcess:
    """One worker on a machine of its own, which is to say a home of its own."""

    def __init__(
        self, home: Path, service: Service, environ: Mapping[str, str], *, queues: Sequence[str], slots: int
    ) -> None:
        self.home = home
        self.name = home.name
        self._service = service
        self._queues = queues
        self._slots = slots
        self._environ = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "RUNYARD_HOME": str(home),
            "RUNYARD_API_URL": service.url,
            "RUNYARD_API_KEY": service.key,
            "RUNYARD_WORKER_NAME": home.name,
            **environ,
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, library: str) -> WorkerRecord:
        """Start it, and return what the service knows of it once it serves."""
        before = await self._record()
        args = ["--queues", ",".join(self._queues), "--concurrency", str(self._slots), "--executor", library]
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.home / "worker.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220  a moment is fine
                [RUNYARD, "worker", *args], env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        async with asyncio.timeout(_READY_WITHIN):
            while True:
                record = await self._record()
                again = before is not None and record is not None and record.pid == before.pid
                if record is not None and record.state == "live" and (not again or self._is_taken_over()):
                    return record
                if self._process.poll() is not None:
                    raise AssertionError(f"the worker ended: {self.log()}")
                await asyncio.sleep(0.02)

    def log(self) -> str:
        return (self.home / "worker.log").read_text(errors="replace")

    def _is_taken_over(self) -> bool:
        """Whether the process that was started last has begun to take messages."""
        return self.log().rpartition('"event": "worker begins"')[2].find('"event": "ready"') >= 0

    async def _record(self) -> WorkerRecord | None:
        """Return what the service knows of it."""
        now = self._service.clock.now()
        found = await self._service.store.read(all_workers, now, "", _MOST)
        return next((one for one in found if one.name == self.name and one.kind == "worker"), None)

    async def record(self) -> WorkerRecord:
        found = await self._record()
        assert found is not None, f"{self.name} is not known"
        return found

    def stop(self) -> None:
        """Ask it to end, as an operator does."""
        if self._process is not None and self._is_running():
            self._process.send_signal(signal.SIGTERM)

    async def ended(self, within: float = 60.0) -> None:
        """Return once the process and its agent have ended."""
        async with asyncio.timeout(within):
            while self._is_running() or self.agents():  # noqa: ASYNC110  a fact, not an event
                await asyncio.sleep(0.02)

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill_feeder(self) -> None:
        """Kill what takes messages, and nothing else."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_agents(self) -> None:
        for pid in self.agents():
            linux.kill(pid)

    def kill_hosts(self) -> None:
        for agent in self.agents():
            for zygote in linux.descendants(agent)[:1]:
                os.kill(zygote, signal.SIGKILL)

    async def kill(self) -> None:
        """Kill everything on this machine at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        async with asyncio.timeout(20):
            while found := self.processes():
                for pid in found:
                    linux.kill(pid)
                await asyncio.sleep(0.01)
        if self._process is not None:
            self._process.wait()

    def agents(self) -> list[int]:
        home = os.fsencode(self.home)
        return [pid for pid in pids() if b"worker/__main__.py" in (line := command(pid)) and home in line]

    def processes(self) -> list[int]:
        """Return every live process of this home: feeder, agent, zygote, tasks and what they left."""
        agents = self.agents()
        found = {pid for agent in agents for pid in (agent, *linux.descendants(agent))}
        if self._process is not None and self._process.poll() is None:
            found.add(self._process.pid)
        if self._agent_id():
            found.update(marked(f"{MARKER}={self._agent_id()}"))
        return sorted(pid for pid in found if is_alive(pid))

    def leftovers(self) -> list[str]:
        """Return what is there of attempts: processes that are no part of the worker, and folders in the spool.

        Folders count while there is an agent to remove them; else the next one does, when it starts.
        """
        found = []
        if not self.agents():
            return [f"pid {pid}" for pid in self.processes() if self._process is None or pid != self._process.pid]
        with suppress(FileNotFoundError):
            entries = [entry.name for entry in (self._place() / "agent" / "attempts").iterdir()]
            found = [name for name in entries if name.partition(".")[0] not in ("outcomes", "spare")]
        own = {pid for agent in self.agents() for pid in (agent, *linux.descendants(agent)[:1])}
        own |= {self._process.pid} if self._process is not None else set()
        return found + [f"pid {pid}" for pid in self.processes() if pid not in own]

    def peak_memory(self) -> int:
        own = [pid for agent in self.agents() for pid in (agent, *linux.descendants(agent)[:1])]
        return sum(_peak(pid) for pid in own)

    def _place(self) -> Path:
        return self.home / "workers" / "1"

    def _agent_id(self) -> str:
        with suppress(FileNotFoundError):
            return (self._place() / "agent" / "id").read_text().strip()
        return ""


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no peak in /proc")
