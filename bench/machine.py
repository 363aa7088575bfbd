"""What the machine itself does, in the same minutes: a figure means little without it.

python -m bench.machine
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg  # type: ignore[import-untyped]  # it ships no types

from bench.bare import bare
from bench.command import run_benchmark
from bench.figures import Report
from bench.load import Job, drive
from bench.processes import Neighbours, wait_quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.command import Options

_FORKS = """
import os, time
count, start = 0, time.monotonic()
while time.monotonic() - start < {seconds}:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    count += 1
print(count / (time.monotonic() - start))
"""
_CONNECTIONS = 8
#: Of each rate when it stands beside another figure, and when it is the figure.
BRIEFLY = 0.3
_WELL = 2.0


def spawns(seconds: float) -> float:
    """``posix_spawn`` of /bin/true and waiting for it, from one thread."""
    return _rate(seconds, lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0))


def forks(seconds: float) -> float:
    """Fork and wait from a small Python."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _FORKS.format(seconds=seconds)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def pythons(seconds: float) -> float:
    """``python -c pass``, one after the other."""
    return _rate(seconds, lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))


def sqlite_commits(seconds: float) -> float:
    """One row a commit, WAL, synchronous=FULL, where homes of benchmarks are."""
    with tempfile.TemporaryDirectory(prefix="runyard-bench-") as folder:
        conn = sqlite3.connect(Path(folder) / "rates.db", isolation_level=None)
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")
        rate = _rate(seconds, lambda: conn.execute("INSERT INTO rows (text) VALUES ('a row of no great length')"))
        conn.close()
    return rate


def postgres_commits(seconds: float, url: str) -> float:
    """One row a commit with fsync, from one client."""

    async def insert() -> float:
        conn = await asyncpg.connect(url)
        await conn.execute("CREATE TABLE IF NOT EXISTS bench_rates (id bigserial PRIMARY KEY, text text)")
        statement = await conn.prepare("INSERT INTO bench_rates (text) VALUES ('a row of no great length')")
        count, start = 0, time.monotonic()
        while time.monotonic() - start < seconds:
            await statement.fetch()
            count += 1
        rate = count / (time.monotonic() - start)
        await conn.execute("DROP TABLE bench_rates")
        await conn.close()
        return rate

    return asyncio.run(insert())


def fastapi(seconds: float) -> tuple[float, float]:
    """Requests a second of a bare application on uvicorn: an async GET, and a POST with a pydantic body."""
    with bare() as url:
        return _requests(f"{url}/thing", "GET", seconds), _requests(f"{url}/thing", "POST", seconds)


def _requests(url: str, method: str, seconds: float) -> float:
    rate = _request_rate(url, method, 200)  # says how many fill the time
    return _request_rate(url, method, max(200, round(rate * seconds)))


def _request_rate(url: str, method: str, count: int) -> float:
    expected = 200 if method == "GET" else 201
    outcome = drive(Job(url=url, method=method, expected=expected, connections=_CONNECTIONS, count=count))
    if outcome.errors:
        raise RuntimeError(f"{method} {url}: {outcome.errors}")
    return count / outcome.seconds


def beside(report: Report, options: Options, *names: str, url: str | None = None) -> None:
    """Wait for a quiet moment, then note the rates *names* in *report*, each measured briefly.

    *url* is a Postgres for its commits.
    """
    wait_quiet(options.patience)
    for name in names:
        report.add_machine(_NAMES[name], "/s", _SIMPLE[name](BRIEFLY))
    if url is not None:
        report.add_machine("Postgres commits, fsync, one client", "/s", postgres_commits(BRIEFLY, url))


def neighbours(report: Report, watch: Neighbours) -> None:
    """Note how busy others kept the machine while *watch* looked."""
    shares = watch.shares()
    report.add_machine("other processes", f"of {os.cpu_count()} cores", shares.others)
    report.add_machine("stolen by the host", "cores", shares.stolen)


def _rate(seconds: float, once: Callable[[], object]) -> float:
    count, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        once()
        count += 1
    return count / (time.monotonic() - start)


_SIMPLE: dict[str, Callable[[float], float]] = {
    "spawn": spawns,
    "fork": forks,
    "python": pythons,
    "sqlite": sqlite_commits,
}
_NAMES = {
    "spawn": "posix_spawn of /bin/true and wait",
    "fork": "fork and wait, small Python",
    "python": "python -c pass",
    "sqlite": "SQLite commits, WAL, FULL",
}


def measure(options: Options) -> Sequence[Report]:
    """Measure every rate."""
    report = Report("machine")
    with options.servers() as servers:
        for _ in range(options.repeat):
            wait_quiet(options.patience)
            watch = Neighbours([])
            for name, rate in _SIMPLE.items():
                report.add(_NAMES[name], "/s", rate(_WELL))
            neighbours(report, watch)
            report.add("Postgres commits, fsync, one client", "/s", postgres_commits(_WELL, servers.postgres.create()))
            gets, posts = fastapi(_WELL)
            report.add("bare FastAPI, async GET", "/s", gets)
            report.add("bare FastAPI, POST with a pydantic body", "/s", posts)
    report.note(f"bare FastAPI: uvicorn, uvloop, httptools, {_CONNECTIONS} kept connections")
    return [report]


if __name__ == "__main__":
    run_benchmark(measure, databases=None)
