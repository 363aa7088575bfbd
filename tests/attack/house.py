"""A service that lets strangers in: their runs, how it bears them, and what they leave behind."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from tests.system.service import Service, wait_for
from worker import linux

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Beside every stranger: a task that has nothing to do with it and writes down that it came to its end.
NEIGHBOUR: Final = "sleep 0.5; echo $RUNYARD_TRY_NUMBER >> {journal}"
_PROBES: Final = 0.05


@dataclass
class Borne:
    """How the service was while it was watched."""

    slowest: float = 0.0
    probes: int = 0
    #: By how much the memory of service, agent and zygote grew, in MiB.
    grown: float = 0.0


class House:
    """A running service with four slots, and calls to it."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.folder = folder
        self.client = httpx.Client(
            base_url=f"{service.url}/api/v1", headers={"Authorization": f"Bearer {service.key}"}, timeout=30
        )
        self._names = 0

    def host(self, task: dict[str, Any], **more: Any) -> tuple[str, Path]:
        """Start a run of a hostile *task* with two neighbours; return its DAG's id and the neighbours' journal."""
        self._names += 1
        dag_id = f"hostile{self._names}"
        journal = self.folder / f"{dag_id}.journal"
        begun = f"{journal}.begun"
        neighbour = {"command": ["sh", "-c", f"echo >> {begun}; {NEIGHBOUR.format(journal=journal)}"]}
        hostile = task | {"env": {"NEIGHBOURS": begun} | task.get("env", {})}
        tasks = {"one": neighbour, "hostile": hostile, "two": neighbour}
        put = self.client.put(f"/dags/{dag_id}", json={"tasks": tasks} | more)
        assert put.status_code == 201, put.text
        assert self.client.post(f"/dags/{dag_id}/runs", json={"run_id": "r"}).status_code == 201
        return dag_id, journal

    def task(self, dag_id: str, task_id: str = "hostile") -> dict[str, Any]:
        found = self.client.get(f"/dags/{dag_id}/runs/r/tasks/{task_id}")
        return found.json() if found.is_success else {"state": None}

    def attempts(self, dag_id: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.client.get(f"/dags/{dag_id}/runs/r/tasks/hostile/attempts").json()["items"]
        return items

    def ended(self, dag_id: str, within: float = 40) -> dict[str, Any]:
        """Return the run once it has ended."""

        def run() -> dict[str, Any] | None:
            found: dict[str, Any] = self.client.get(f"/dags/{dag_id}/runs/r").json()
            return found if found["ended_at"] is not None else None

        ended: dict[str, Any] = wait_for(run, within)
        return ended

    def agent(self) -> int:
        (found,) = wait_for(lambda: [pid for pid in self.service.agents() if Path(f"/proc/{pid}/cwd").exists()])
        return int(found)

    def strangers(self) -> list[str]:
        """Return what is alive below the agent, but its zygote, and what has this home in its environment."""
        agents = self.service.agents()
        below = [pid for agent in agents for pid in linux.descendants(agent)]
        zygotes = {pid for agent in agents for pid in linux.descendants(agent)[:1]}
        assert self.service.process is not None
        own = {*agents, *zygotes, self.service.process.pid}
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            pid = int(place.name)
            with suppress(OSError):
                if pid in own or (place / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    continue
                if pid in below or f"RUNYARD_WORK_DIR={self.service.home}".encode() in (place / "environ").read_bytes():
                    found.append(f"{pid} {(place / 'cmdline').read_bytes()!r}")
        return found

    @contextmanager
    def watched(self) -> Iterator[Borne]:
        """Ask the service all the time whether it is there, and look at its memory."""
        borne, over = Borne(), threading.Event()
        before = self._memory()

        def watch() -> None:
            with httpx.Client(headers=self.client.headers, timeout=30) as client:
                while not over.wait(_PROBES):
                    began = time.monotonic()
                    assert client.get(f"{self.service.url}/api/v1/runs?limit=5").status_code == 200
                    borne.slowest = max(borne.slowest, time.monotonic() - began)
                    borne.probes += 1
                    borne.grown = max(borne.grown, (self._memory() - before) / 2**20)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield borne
        finally:
            over.set()
            thread.join()

    def _memory(self) -> int:
        assert self.service.process is not None
        agents = self.service.agents()
        zygotes = [pid for agent in agents for pid in linux.descendants(agent)[:1]]
        total = 0
        for pid in (self.service.process.pid, *agents, *zygotes):
            with suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
        return total
