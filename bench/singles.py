"""Many runs of one task each: triggered over HTTP as fast as they are accepted, until the last has ended.

python -m bench.singles
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from bench import machine
from bench.command import run_benchmark
from bench.figures import Goal, Report, percentile
from bench.load import Job, drive
from bench.running import Running, service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.client import Client
    from bench.command import Options

RUNS = 200
_CONNECTIONS = 8
_PATIENCE = 120
#: Runs one after the other.
_ALONE = 20
_GOAL = Goal(60, "at least")


def measure(options: Options) -> Sequence[Report]:
    """Measure on each database that was asked for."""
    with options.servers() as servers:
        reports = []
        for database in options.databases:
            with service(options, servers, database, "singles") as running:
                reports.append(_measure(running, database, options))
    return reports


def _measure(running: Running, database: str, options: Options) -> Report:
    report = Report("singles", database)
    client = running.client
    client.define("warm", {"only": {"command": ["true"]}})
    for number in range(options.repeat):
        machine.beside(report, options, "spawn", "fork", "sqlite", url=running.database_url)
        dag_id = f"single{number}"
        client.define(dag_id, {"only": {"command": ["true"]}})
        watch, cpu = running.neighbours(), running.pids.cpu()
        outcome = drive(
            Job(
                url=f"{client.url}/api/v1/dags/{dag_id}/runs",
                headers=client.headers,
                connections=_CONNECTIONS,
                count=RUNS,
            )
        )
        ended = settle(running, dag_id)
        cpu = running.pids.cpu() - cpu
        _first_starts(report, client)
        machine.neighbours(report, watch)
        seconds = max(ended) - outcome.began
        report.add(f"{RUNS} runs, from the first POST to the last end", "runs/s", RUNS / seconds, _GOAL)
        report.add("accepted while that went on", "triggers/s", RUNS / outcome.seconds)
        report.add("errors", "", float(sum(outcome.errors.values()) + RUNS - len(ended)), Goal(0))
        report.add("CPU a run", "ms", 1000 * cpu / RUNS)
    report.note(
        f"one task `true` a run, {_CONNECTIONS} kept connections in a closed loop, 4 slots; stretch goal 100 runs/s",
        "from accepted to start: queued_at of the run to started_at of its task, both from the API; this goal comes "
        "from the comparison with other orchestrators, not from the issue",
        "CPU: service, agent and zygote, without the tasks' own processes",
    )
    return report


def _first_starts(report: Report, client: Client) -> None:
    """Trigger runs one after the other and see how long the first task takes to start."""
    runs = [client.run("warm") for _ in range(_ALONE)]
    lags = [1000 * (_at(client.tasks(run)[0]["started_at"]) - _at(run["queued_at"])) for run in runs]
    report.add("from accepted to the start of the task, alone, median", "ms", percentile(lags, 50), Goal(15))
    report.add("from accepted to the start of the task, alone, p95", "ms", percentile(lags, 95))


def settle(running: Running, dag_id: str) -> list[float]:
    """Wait until no run of *dag_id* is active; return when each successful one ended."""
    deadline = time.monotonic() + _PATIENCE
    path = f"/dags/{dag_id}/runs"
    while running.client.call("GET", f"{path}?state=queued&state=running&limit=1")["items"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"runs of {dag_id} do not end")
        time.sleep(0.2)
    runs = running.client.items(path, state="success")
    return [_at(run["ended_at"]) for run in runs]


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    run_benchmark(measure)
