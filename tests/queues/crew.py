"""Workers as an operator starts them: processes of their own, in a home of their own, without a database."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.system.service import PLAIN, RUNYARD, wait_for
from worker import linux

if TYPE_CHECKING:
    from tests.system.service import Service

DRAMATIQ = Path(sys.executable).with_name("dramatiq")
CELERY = Path(sys.executable).with_name("celery")
#: A database that lets nobody in: a worker must not even try.
FORBIDDEN = "postgresql://nobody:n0thing@127.0.0.1:1/none"


class Crew:
    """Worker processes that share a home."""

    def __init__(self, service: Service, home: Path, broker_url: str, key: str, library: str) -> None:
        self.service = service
        self.library = library
        self.home = home
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.environ = {
            **PLAIN,
            "RUNYARD_HOME": str(home),
            "RUNYARD_DATABASE_URL": FORBIDDEN,
            "RUNYARD_BROKER_URL": broker_url,
            "RUNYARD_API_URL": service.url,
            "RUNYARD_API_KEY": key,
            "RUNYARD_WORKER_NAME": home.name,
            "RUNYARD_WORKER_DRAIN": "1",
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    def runyard(self, *args: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start ``runyard worker``."""
        return self.start(RUNYARD, "worker", "--executor", self.library, *args, **environ)

    def own(self, slots: int = 2, queue: str | None = None, /, **environ: str) -> subprocess.Popen[bytes]:
        """Start the library's own command line, at its most talkative."""
        queues = ["-Q", queue] if queue else []
        if self.library == "dramatiq":
            return self.dramatiq("-p", "1", "-t", str(slots), *queues, "-v", **environ)
        args = ["-A", "runyard.workers.celery", "worker", "-c", str(slots), *queues, "-l", "debug"]
        return self.start(CELERY, *args, **environ)

    def dramatiq(self, *args: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start Dramatiq's own command line."""
        return self.start(DRAMATIQ, "runyard.workers.dramatiq", *args, **environ)

    def start(self, *args: str | Path, **environ: str) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                args, env={**self.environ, **environ}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home
            )
        self.processes.append(process)
        return process

    @property
    def log_file(self) -> Path:
        return self.home.parent / f"{self.home.name}.log"

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def records(self) -> list[dict[str, Any]]:
        """Return what the service knows of live workers of this home."""
        found = get(self.service, "/workers")["items"]
        return [one for one in found if (one["name"] or "").startswith(self.home.name) and one["state"] == "live"]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Return the workers once there are *count* of them."""

        def enough() -> list[dict[str, Any]] | None:
            for process in self.processes:
                assert process.poll() is None, self.log
            found = self.records()
            return found if len(found) == count else None

        found: list[dict[str, Any]] = wait_for(enough, 60)
        return found

    def everything(self) -> list[int]:
        """Return all processes below the workers and below their agents."""
        roots = [one.pid for one in self.processes if one.poll() is None] + self.agents()
        return sorted({pid for root in roots for pid in (root, *linux.descendants(root))})

    def agents(self) -> list[int]:
        return [pid for pid in _all() if b"worker/__main__.py" in (line := _read(pid, "cmdline")) and self._mine(line)]

    def _mine(self, line: bytes) -> bool:
        return f'"{self.home}/'.encode() in line

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for pid in self.agents():
            linux.kill(pid)


def get(service: Service, path: str) -> Any:
    """Return what the API answers."""
    headers = {"Authorization": f"Bearer {service.key}"}
    answer = httpx.get(f"{service.url}/api/v1{path}", headers=headers, timeout=30)
    answer.raise_for_status()
    return answer.json()


def ended(process: subprocess.Popen[bytes], within: float = 60.0) -> int:
    """Return the exit code of a process that is to end."""
    return process.wait(within)


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ask a process to end, as an operator does, and return its exit code."""
    process.send_signal(signal.SIGTERM)
    return ended(process)


def argv(pid: int) -> bytes:
    return _read(pid, "cmdline")


def environment(pid: int) -> bytes:
    return _read(pid, "environ")


def _read(pid: int, name: str) -> bytes:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes()
    except OSError:
        return b""


def _all() -> list[int]:
    return [int(place.name) for place in Path("/proc").glob("[0-9]*")]
