"""One task, then 100 at once, then one: how fast tasks get through 4 slots.

python -m bench.fanout
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.command import run_benchmark
from bench.figures import Goal, Report
from bench.running import Running, service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.command import Options

WIDTH = 100
SLOTS = 4
_BODIES: dict[str, Any] = {
    "commands": {"command": ["true"]},
    "functions": {"python": {"call": "small:step", "kwargs": {"number": 1}}},
}
_GOALS = {"commands": Goal(150, "at least"), "functions": Goal(60, "at least")}


def measure(options: Options) -> Sequence[Report]:
    """Measure on each database that was asked for."""
    with options.servers() as servers:
        reports = []
        for database in options.databases:
            with service(options, servers, database, "fanout", RUNYARD_LOCAL_PARALLELISM=str(SLOTS)) as running:
                reports.append(_measure(running, database, options))
    return reports


def _measure(running: Running, database: str, options: Options) -> Report:
    report = Report("fanout", database)
    for kind, body in _BODIES.items():
        running.client.define(kind, fan(body))
        running.client.run(kind)
    for _ in range(options.repeat):
        machine.beside(report, options, "spawn", "fork", "sqlite", url=running.database_url)
        watch = running.neighbours()
        for kind in _BODIES:
            cpu, began = running.pids.cpu(), time.monotonic()
            run = running.client.run(kind)
            seconds = time.monotonic() - began
            cpu = running.pids.cpu() - cpu
            count = WIDTH + 2
            report.add(f"{kind}, as the client sees it", "tasks/s", count / seconds, _GOALS[kind])
            report.add(f"{kind}, from the run's start to its end", "tasks/s", count / run["duration"])
            report.add(f"{kind}: CPU a task", "ms", 1000 * cpu / count)
        machine.neighbours(report, watch)
    report.note(
        f"1 → {WIDTH} → 1, RUNYARD_LOCAL_PARALLELISM={SLOTS}; never the first run of a DAG; all {WIDTH + 2} "
        "tasks over the whole time, first and last task included",
        "CPU: service, agent and zygote, without the tasks' own processes",
    )
    return report


def fan(body: dict[str, Any]) -> dict[str, Any]:
    """Return the tasks of the DAG."""
    middle = [f"m{n:03}" for n in range(WIDTH)]
    tasks: dict[str, Any] = {"first": body}
    tasks |= {name: body | {"depends_on": ["first"]} for name in middle}
    tasks["last"] = body | {"depends_on": middle}
    return tasks


if __name__ == "__main__":
    run_benchmark(measure)
