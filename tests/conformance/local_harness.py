"""The harness of ``sequential`` and ``local``: real agents, zygotes and tasks in a home of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from executors import registry, spawn
from executors.base import ExecutorConfig, HealthStatus
from executors.conformance.world import is_alive
from executors.local import Local
from tests.processes import free_port
from worker import environment, linux, logs

if TYPE_CHECKING:
    from executors.agent import AgentClient
    from executors.base import Context


class LocalHarness:
    """One of our two executors on the home below *folder*, which is made where there is none."""

    secret = ("RUNYARD_DATABASE_URL", "postgresql://u:correct-horse-battery@nowhere/x")

    def __init__(self, name: str, slots: int, folder: Path) -> None:
        self.name = name
        self.slots = slots
        # Longer than the 107 bytes of a UNIX address, on purpose.
        self.home = folder / ("home-" + "x" * 120)
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.code_dir = self.home / "code"
        self.code_dir.mkdir(exist_ok=True)
        self.scratch = folder / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self.http_port = free_port()
        self.executor: Local | None = None
        self.agents: set[int] = set()
        # What the service's own parent left open for everybody must not reach a task.
        self.stray = os.open(os.devnull, os.O_RDONLY)
        os.set_inheritable(self.stray, True)  # noqa: FBT003  positional only

    async def open(self, context: Context) -> Local:
        os.environ[self.secret[0]] = self.secret[1]
        try:
            return await self._start(context, sys.executable)
        finally:
            del os.environ[self.secret[0]]

    async def _start(self, context: Context, python: str) -> Local:
        config = ExecutorConfig(
            name=self.name,
            home=self.home,
            code_dir=self.code_dir,
            log_dir=self.home / "logs",
            task_python=python,
            parallelism=self.slots,
            http_allow=("127.0.0.1",),
            http_ports=(self.http_port,),
        )
        executor = registry.make(config)
        assert isinstance(executor, Local)
        self.executor = executor
        await executor.start(context)
        while executor.health().status is not HealthStatus.OK:  # noqa: ASYNC110  a fact, not an event
            await asyncio.sleep(0.005)
        self.agents.add(self._agent())
        return executor

    async def close(self) -> None:
        os.close(self.stray)
        if self.executor is not None:
            self.executor.abandon()
        for pid in self.processes():
            linux.kill(pid)
        async with asyncio.timeout(10):
            while self.processes():  # noqa: ASYNC110  a fact, not an event
                await asyncio.sleep(0.01)
        for pid in self.agents:
            spawn.has_ended(pid)  # reaps it, where it was ours

    def log(self, attempt_id: str) -> bytes:
        try:
            return logs.path(self.home / "logs", attempt_id).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return b""

    def leftovers(self) -> list[str]:
        if self.executor is None or self.executor.health().status is not HealthStatus.OK:
            return []
        kept = ("outcomes", "spare")
        attempts = (self.home / "agent" / "attempts").iterdir()
        folders = [str(entry) for entry in attempts if entry.name.partition(".")[0] not in kept]
        held = {self._agent(), *linux.descendants(self._agent())[:1]}
        return folders + [f"pid {pid}" for pid in self.processes() if pid not in held]

    def processes(self) -> list[int]:
        """Return every live process that belongs to this home: agent, zygote, tasks and what they left."""
        found = []
        id_file = self.home / "agent" / "id"
        marker = environment.MARKER + "=" + (id_file.read_text() if id_file.exists() else "none")
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid() and is_alive(int(entry.name)):
                with suppress(OSError):
                    text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                    if os.fsencode(self.scratch.parent) in text or marker.encode() in text:
                        found.append(int(entry.name))
        return found

    async def kill_supervisor(self) -> None:
        os.kill(self._agent(), signal.SIGKILL)

    async def kill_host(self) -> None:
        os.kill(linux.descendants(self._agent())[0], signal.SIGKILL)

    async def restart_scheduler(self, context: Context) -> Local:
        assert self.executor is not None
        self.executor.abandon()
        return await self._start(context, sys.executable)

    async def drop_connection(self) -> None:
        client = self._client()
        if client._link is not None:
            client._link.abort("dropped by the test")
        await asyncio.sleep(0.02)

    async def duplicate_delivery(self, attempt_id: str) -> None:
        client = self._client()
        assert client._link is not None
        client._link.send({"type": "launch", "attempt_id": attempt_id})
        await asyncio.sleep(0)

    def peak_memory(self) -> int:
        agent = self._agent()
        return sum(_peak(pid) for pid in (agent, linux.descendants(agent)[0]))

    def break_logs(self) -> None:
        (self.home / "logs").write_text("a file where the folder should be")

    async def break_interpreter(self, context: Context) -> Local:
        assert self.executor is not None
        self.executor.abandon()
        return await self._start(context, "/no/such/python")

    def _client(self) -> AgentClient:
        assert self.executor is not None
        assert self.executor._client is not None
        return self.executor._client

    def _agent(self) -> int:
        hello = self._client()._hello
        assert hello is not None
        return hello["pid"]


def _peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no peak in /proc")
