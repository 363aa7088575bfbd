"""How long ``runyard standalone`` takes to be ready, and what it costs when it has nothing to do.

python -m bench.start
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from bench import machine
from bench.command import run_benchmark
from bench.figures import Goal, Report
from bench.ports import free_port
from bench.processes import Neighbours, cpu_seconds, pss
from bench.running import pids_of
from tests.system.service import PLAIN, Service

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.command import Options, Servers

#: The libraries that a ready service has loaded, each with the parts of it that are imported anyhow.
LIBRARIES = (
    "asyncio, fastapi, httptools, prometheus_client, pydantic, pydantic_settings, sqlalchemy, starlette, structlog, "
    "typer, uvicorn, uvicorn.protocols.http.httptools_impl, uvloop"
)
_DRIVERS = {
    "sqlite": "sqlite3, sqlalchemy.dialects.sqlite",
    "postgres": "asyncpg, sqlalchemy.dialects.postgresql.asyncpg",
}
_READY_WITHIN = 60.0
_ROUNDS = 3


def measure(options: Options) -> Sequence[Report]:
    """Measure on each database that was asked for."""
    with options.servers() as servers:
        return [_measure(options, servers, database) for database in options.databases]


def _measure(options: Options, servers: Servers, database: str) -> Report:
    report = Report("start", database)
    bare_imports(database)  # the page cache, for everybody
    for _ in range(options.repeat):
        machine.beside(report, options, "python", "sqlite")
        watch = Neighbours([])
        _starts(report, servers, database)
        machine.neighbours(report, watch)
    _idle(report, servers, database, options.idle_seconds)
    report.note(
        "ready: from starting the process to the last byte of the first 200 of /health/ready, database made and agent "
        "connected",
        f"bare imports: `python -c 'import …'` with {LIBRARIES} and the driver: start of Python to its end; {_ROUNDS} "
        "rounds a repeat, alternating with the starts, medians",
        "idle: service, agent and zygote; nothing defined, nobody asks; the Postgres server is not counted",
        "`other processes` here includes the service itself",
    )
    return report


def _starts(report: Report, servers: Servers, database: str) -> None:
    imports: list[float] = []
    fresh: list[float] = []
    second: list[float] = []
    for _ in range(_ROUNDS):
        made = Service(servers.home(), servers.database(database))
        imports.append(bare_imports(database))
        fresh.append(start(made))
        made.end()
        imports.append(bare_imports(database))
        second.append(start(made))
        made.end()
    base = statistics.median(imports)
    report.add("bare imports", "s", base)
    for name, times in (("fresh home", fresh), ("second start", second)):
        ready = statistics.median(times)
        report.add(f"ready, {name}", "s", ready, Goal(2.0))
        report.add(f"ready, {name}, beyond the bare imports", "s", ready - base, Goal(0.8))
        report.add(f"ready, {name}, as a multiple of the bare imports", "", ready / base)


def start(made: Service) -> float:
    """Start a service; return the seconds until it was ready."""
    port = free_port()
    ready: list[float] = []
    prober = threading.Thread(target=_probe, args=(port, ready))
    prober.start()
    began = time.monotonic()
    made.start("--port", str(port))
    prober.join(_READY_WITHIN)
    if not ready:
        raise RuntimeError("the service did not become ready")
    return ready[0] - began


def bare_imports(database: str) -> float:
    """Return the seconds that a process takes which imports the libraries and ends."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {LIBRARIES}, {_DRIVERS[database]}"], env=PLAIN, check=True)
    return time.monotonic() - began


def _probe(port: int, ready: list[float]) -> None:
    """Ask /health/ready until it says 200, and note when.

    A connection that the kernel accepted waits for its answer, so asking costs the service next to nothing.
    """
    deadline = time.monotonic() + _READY_WITHIN
    request = b"GET /health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=_READY_WITHIN) as conn:
                conn.sendall(request)
                answer = b""
                while piece := conn.recv(65536):
                    answer += piece
        except OSError:
            answer = b""
        if answer.startswith(b"HTTP/1.1 200"):
            ready.append(time.monotonic())
            return
        time.sleep(0.003)


def _idle(report: Report, servers: Servers, database: str, seconds: float) -> None:
    home: Path = servers.home()
    made = Service(home, servers.database(database))
    try:
        start(made)
        time.sleep(5)
        pids = pids_of(made)
        parts = {"service": pids.service, "agent": pids.agent, "zygote": pids.zygote}
        before = {part: cpu_seconds(pid) for part, pid in parts.items()}
        began = time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - began
        used = {part: 100 * (cpu_seconds(pid) - before[part]) / passed for part, pid in parts.items()}
        sizes = {part: pss(pid) / 1e6 for part, pid in parts.items()}
    finally:
        made.end()
    report.add("idle PSS, all processes", "MB", sum(sizes.values()), Goal(130))
    for part, size in sizes.items():
        report.add(f"idle PSS, {part}", "MB", size)
    report.add(f"idle CPU over {seconds:.0f} s, all processes", "% of a core", sum(used.values()), Goal(0.5))
    for part, share in used.items():
        report.add(f"idle CPU, {part}", "% of a core", share)


if __name__ == "__main__":
    run_benchmark(measure)
