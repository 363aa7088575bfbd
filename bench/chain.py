"""40 tasks, each of which waits for the one before: what Runyard adds between two tasks.

python -m bench.chain
"""

from __future__ import annotations

import time
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.command import run_benchmark
from bench.figures import Goal, Report, percentile
from bench.running import Running, service
from bench.stages import add_stages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.command import Options

LENGTH = 40
_BODIES: dict[str, Any] = {
    "commands": {"command": ["true"]},
    "functions": {"python": {"call": "small:step", "kwargs": {"number": 1}}},
    "stamping commands": {"command": ["date", "+%s%N"]},
    "stamping functions": {"python": {"call": "small:stamp"}},
}
_WALL = {"commands": Goal(0.4), "functions": Goal(0.6)}
_LAG = {"sqlite": Goal(6), "postgres": Goal(15)}


def measure(options: Options) -> Sequence[Report]:
    """Measure on each database that was asked for."""
    with options.servers() as servers:
        reports = []
        for database in options.databases:
            with service(options, servers, database, "chain") as running:
                reports.append(_measure(running, database, options))
    return reports


def _measure(running: Running, database: str, options: Options) -> Report:
    report = Report("chain", database)
    client = running.client
    for kind, body in _BODIES.items():
        client.define(_dag_id(kind), chain(body))
        started = time.monotonic()
        client.run(_dag_id(kind))
        report.add(f"{LENGTH} {kind}, very first run, as the client sees it", "s", time.monotonic() - started)
    for _ in range(options.repeat):
        machine.beside(report, options, "spawn", "fork", "sqlite", url=running.database_url)
        watch = running.neighbours()
        for kind in ("commands", "functions"):
            _walls(report, running, kind, _WALL[kind] if database == "sqlite" else None)
        for kind in ("commands", "functions"):
            _stamps(report, running, kind, _LAG[database] if kind == "commands" else None)
        machine.neighbours(report, watch)
    report.note(
        "as the client sees it: from sending POST ?wait to its answer; from start to end: the run's own timestamps",
        "lag by the API's timestamps: from ended_at (the agent saw the process end) to the next started_at (the "
        "transaction that starts it): without the spawn",
        "lag from body to body, commands: `date` prints one clock a task, so it includes the exit of one process and "
        "fork, exec and dynamic linking of the next",
        "lag from body to body, functions: from the end of one function to the begin of the next: includes exit, fork, "
        "import of the module, everything",
        "CPU: service, agent and zygote, without the tasks' own processes",
    )
    return report


def chain(body: dict[str, Any], length: int = LENGTH) -> dict[str, Any]:
    """Return *length* tasks in a row."""
    return {_name(n): body | ({"depends_on": [_name(n - 1)]} if n else {}) for n in range(length)}


def _walls(report: Report, running: Running, kind: str, goal: Goal | None) -> None:
    cpu, began = running.pids.cpu(), time.monotonic()
    run = running.client.run(_dag_id(kind))
    seconds = time.monotonic() - began
    cpu = running.pids.cpu() - cpu
    report.add(f"{LENGTH} {kind}, as the client sees it", "s", seconds, goal)
    report.add(f"{LENGTH} {kind}, from start to end", "s", run["duration"], goal)
    tasks = running.client.tasks(run)
    lags = [1000 * (_at(later["started_at"]) - _at(earlier["ended_at"])) for earlier, later in pairwise(tasks)]
    _add_lags(report, f"{kind}: lag by the API's timestamps", lags, None)
    report.add(f"{kind}: CPU a task", "ms", 1000 * cpu / LENGTH)


def _stamps(report: Report, running: Running, kind: str, goal: Goal | None) -> None:
    run = running.client.run(_dag_id(f"stamping {kind}"))
    stamps = [[int(each) for each in running.client.log(run, _name(n)).split()] for n in range(LENGTH)]
    lags = [(later[0] - earlier[-1]) / 1e6 for earlier, later in pairwise(stamps)]
    _add_lags(report, f"{kind}: lag from body to body", lags, goal)
    if kind == "commands":
        add_stages(report, kind, running.client.tasks(run), [stamp[0] for stamp in stamps])


def _add_lags(report: Report, name: str, lags: list[float], goal: Goal | None) -> None:
    report.add(f"{name}, median", "ms", percentile(lags, 50), goal)
    report.add(f"{name}, p95", "ms", percentile(lags, 95))


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _name(number: int) -> str:
    return f"t{number:02}"


def _dag_id(kind: str) -> str:
    return kind.replace(" ", "_")


if __name__ == "__main__":
    run_benchmark(measure)
