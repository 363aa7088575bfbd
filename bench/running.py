"""A real service under measurement."""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.error import URLError

from bench.client import Client
from bench.figures import ROOT
from bench.past import define, fill
from bench.processes import Neighbours, cpu_seconds
from bench.profiling import profiled
from tests.system.hosts import children
from tests.system.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.command import Options, Servers

CODE = ROOT / "bench" / "tasks"
_READY_WITHIN = 30


@dataclass(frozen=True, slots=True)
class Pids:
    """The processes of one service that are always there."""

    service: int
    agent: int
    zygote: int

    def cpu(self) -> float:
        """Return what they used so far, without the tasks."""
        return sum(cpu_seconds(pid) for pid in self.all)

    @property
    def all(self) -> tuple[int, ...]:
        return self.service, self.agent, self.zygote


@dataclass(frozen=True, slots=True)
class Running:
    """A service that is ready, and who may ask it."""

    service: Service
    client: Client
    pids: Pids
    #: Its Postgres, None on SQLite.
    database_url: str | None

    def neighbours(self) -> Neighbours:
        return Neighbours(list(self.pids.all))


@contextmanager
def service(
    options: Options, servers: Servers, database: str, name: str, *, past: bool = False, **environ: str
) -> Iterator[Running]:
    """Run a service on a new home and a new *database*; *name* is what a profile of it is called.

    With a *past* the database has had a million task instances before.
    """
    where = servers.database(database)
    made = Service(servers.home(), {"RUNYARD_CODE_DIR": str(CODE), "RUNYARD_LOG_LEVEL": "warning", **where, **environ})
    with ExitStack() as stack:
        stack.callback(made.end)
        if past:
            _make_past(made, where.get("RUNYARD_DATABASE_URL"))
        made.start("--port", "0")
        wait_ready(made.url)
        client = Client(made.url, made.key)
        stack.callback(client.close)
        pids = pids_of(made)
        if options.profile is not None:
            stack.enter_context(profiled(options.profile, f"{name}-{database}", pids))
        yield Running(made, client, pids, where.get("RUNYARD_DATABASE_URL"))


def _make_past(made: Service, database_url: str | None) -> None:
    made.start("--port", "0")
    client = Client(made.url, made.key)
    define(client)
    client.close()
    made.stop()
    fill(database_url or made.home / "runyard.db")


def pids_of(made: Service) -> Pids:
    """Return the processes of a service whose agent is connected."""
    assert made.process is not None
    (agent,) = made.agents()
    (zygote,) = children(agent)
    return Pids(made.process.pid, agent, zygote)


def wait_ready(url: str) -> None:
    """Return once /health/ready says 200: the executor's agent is connected, too."""
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:  # noqa: S310  # our own, loopback
                if json.load(answer)["status"] == "ok":
                    return
        except URLError:
            pass
        time.sleep(0.02)
    raise RuntimeError(f"{url} is not ready")
