"""Large DAGs: rates, memory, and what one completion in them costs.

python -m bench.large
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import completion, machine
from bench.command import run_benchmark
from bench.figures import Goal, Report
from bench.processes import pss
from bench.running import service
from bench.shapes import layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.command import Options
    from bench.running import Running


def measure(options: Options) -> Sequence[Report]:
    """Measure on each database that was asked for."""
    with options.servers() as servers:
        reports = []
        for database in options.databases:
            with service(options, servers, database, "large", RUNYARD_LOCAL_PARALLELISM="4") as running:
                reports.append(_measure(running, database, options))
    return [*reports, *completion.measure(options)]


def _measure(running: Running, database: str, options: Options) -> Report:
    report = Report("large", database)
    client = running.client
    began = time.monotonic()
    client.define("empties", layers(100, 100, {"empty": {}}))
    report.add("PUT of 10,000 tasks with 49,500 edges", "s", time.monotonic() - began)
    client.define("small", layers(2, 5, {"empty": {}}))
    client.define("commands", layers(10, 100, {"command": ["true"]}))
    client.run("small")
    for number in range(options.repeat):
        machine.beside(report, options, "spawn", "fork", "sqlite", url=running.database_url)
        _empties(report, running, number)
        run = client.run("commands")
        report.add("1,000 commands in 10 layers", "tasks/s", 1000 / run["duration"], Goal(150, "at least"))
    return report


def _empties(report: Report, running: Running, number: int) -> None:
    client = running.client
    before, cpu, began = pss(running.pids.service), running.pids.cpu(), time.monotonic()
    run = client.call("POST", "/dags/empties/runs?wait=120", {})
    seconds = time.monotonic() - began
    assert run["state"] == "success", run["state"]
    events = client.call("GET", f"/dags/empties/runs/{run['run_id']}/events?limit=100")["items"]
    events = [event for event in events if event["kind"] == "run.materialising"]
    report.add("10,000 empty tasks, as the client sees it", "s", seconds)
    report.add("10,000 empty tasks, from the run's start to its end", "tasks/s", 10_000 / run["duration"])
    materialised = _at(events[-1]["at"]) if events else _at(run["started_at"])
    after = _at(run["ended_at"]) - materialised
    report.add("10,000 empty tasks, after the last but one chunk", "tasks/s", 10_000 / after, Goal(2000, "at least"))
    report.add("10,000 empty tasks: CPU", "s", running.pids.cpu() - cpu)
    if number:
        report.add("memory beyond the run before", "MB", (pss(running.pids.service) - before) / 1e6)


def _at(text: str) -> float:
    from datetime import datetime  # noqa: PLC0415  # beside its only use

    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    run_benchmark(measure)
