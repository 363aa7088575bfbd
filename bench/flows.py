"""The flows of the public benchmark of workflow engines, here and in Airflow, in the same call.

40 tasks of fib(10) and 10 of fib(33), each a Python task that waits for the one before; a fan-out of 100; single runs.
Where ``RUNYARD_BENCH_AIRFLOW`` names a virtual environment with Airflow 3.3, the same runs there.

python -m bench.flows --database both
"""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench import machine
from bench.airflow import VARIABLE, airflow, environment
from bench.chain import chain
from bench.command import run_benchmark
from bench.fanout import WIDTH, fan
from bench.figures import ROOT, Goal, Report, percentile
from bench.load import Job, drive
from bench.processes import pss
from bench.running import Running, service
from bench.singles import settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.airflow import Airflow
    from bench.command import Options, Servers

SLOTS = 4
SINGLES = 50
LIGHT, HEAVY = "40 tasks of fib(10) in sequence", "10 tasks of fib(33) in sequence"
FAN = f"1 → {WIDTH} → 1 Python functions"
ALONE = f"{SINGLES} single-task runs by HTTP"
_STEP = {"python": {"call": "small:step", "kwargs": {"number": 1}}}
_WORK = "import time, small; t = time.monotonic(); [small.fib(33) for _ in range(10)]; print(time.monotonic() - t)"
#: How often an engine that takes minutes for all of this is asked to do it.
_AIRFLOW_REPEATS = 1


def measure(options: Options) -> Sequence[Report]:
    """Measure on each database that was asked for."""
    with options.servers() as servers:
        return [_measure(options, servers, database) for database in options.databases]


def _measure(options: Options, servers: Servers, database: str) -> Report:
    report = Report("flows", database)
    began = time.monotonic()
    with service(options, servers, database, "flows", RUNYARD_LOCAL_PARALLELISM=str(SLOTS)) as running:
        ready = time.monotonic() - began
        _define(running)
        for _ in range(options.repeat):
            machine.beside(report, options, "fork", "python", "sqlite", url=running.database_url)
            watch = running.neighbours()
            _flows(report, running, Goal(0.6) if database == "sqlite" else None)
            machine.neighbours(report, watch)
        report.add("ready, database made; Runyard", "s", ready)
        _idle(report, running, options.idle_seconds)
    _beside(report, options, servers, database)
    report.note(
        "Runyard: from sending POST ?wait to its answer; Airflow: from before its trigger to the run's end_date, so "
        "that asking for it costs nothing; both engines' own durations from their runs' own times",
        "work alone: fib(33) ten times in one Python process that does nothing else, in the same minutes",
        "lag: from a task's ended_at to the next one's started_at, by each engine's own API; chain has Runyard's lag "
        "from body to body",
        f"single runs: Runyard's from 8 connections, Airflow's from one; {SLOTS} slots each",
    )
    return report


def _define(running: Running) -> None:
    client = running.client
    client.define("light", chain({"python": {"call": "small:fib", "kwargs": {"number": 10}}}))
    client.define("heavy", chain({"python": {"call": "small:fib", "kwargs": {"number": 33}}}, 10))
    client.define("fan", fan(_STEP))
    client.define("warm", {"only": _STEP})
    client.run("warm")
    client.run("light")


def _flows(report: Report, running: Running, light: Goal | None) -> None:
    work = _work()
    report.add("fib(33) ten times, the work alone", "s", work)
    for name, dag_id, goal in ((LIGHT, "light", light), (HEAVY, "heavy", None)):
        wall, run = _run(running, dag_id)
        report.add(f"{name}; Runyard", "s", wall, goal)
        report.add(f"{name}, the run's own duration; Runyard", "s", run["duration"])
        if dag_id == "heavy":
            report.add(f"{name}: as a multiple of the work alone; Runyard", "", wall / work, Goal(1.05))
        else:
            tasks = running.client.tasks(run)
            lags = [1000 * (_at(later["started_at"]) - _at(earlier["ended_at"])) for earlier, later in pairwise(tasks)]
            report.add("lag between two of them, median; Runyard", "ms", percentile(lags, 50))
    wall, _ = _run(running, "fan")
    report.add(f"{FAN}; Runyard", "s", wall)
    report.add(f"{ALONE}, all done; Runyard", "s", _singles(running))


def _run(running: Running, dag_id: str) -> tuple[float, dict[str, Any]]:
    began = time.monotonic()
    run = running.client.run(dag_id)
    return time.monotonic() - began, run


def _singles(running: Running) -> float:
    client = running.client
    dag_id = f"single{time.monotonic_ns()}"
    client.define(dag_id, {"only": _STEP})
    url = f"{client.url}/api/v1/dags/{dag_id}/runs"
    outcome = drive(Job(url=url, headers=client.headers, connections=8, count=SINGLES))
    ended = settle(running, dag_id)
    if len(ended) != SINGLES:
        raise RuntimeError(f"{len(ended)} of {SINGLES} single runs succeeded")
    return max(ended) - outcome.began


def _idle(report: Report, running: Running, seconds: float) -> None:
    time.sleep(5)
    before, began = running.pids.cpu(), time.monotonic()
    time.sleep(seconds)
    used = (running.pids.cpu() - before) / (time.monotonic() - began)
    report.add("idle CPU of all processes; Runyard", "% of a core", 100 * used)
    report.add("idle PSS of all processes; Runyard", "MB", sum(pss(pid) for pid in running.pids.all) / 1e6)


def _beside(report: Report, options: Options, servers: Servers, database: str) -> None:
    """Do the same in Airflow, where there is one; what it cannot do is said, and hides nothing."""
    place = environment()
    if place is None:
        report.note(f"no Airflow: set {VARIABLE} to a virtual environment that has apache-airflow 3.3 in it")
        return
    url = servers.postgres.create() if database == "postgres" else None
    try:
        with airflow(place, servers.home(), url, SLOTS) as other:
            _same(report, other, options)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        report.note(f"Airflow on {database} did not get through all of it: {error}")
    _ratios(report)


def _same(report: Report, other: Airflow, options: Options) -> None:
    report.add("ready, database made; Airflow", "s", other.migrated_after + other.ready_after)
    other.run("light")  # as with ours, the first is not measured
    for _ in range(_AIRFLOW_REPEATS):
        for name, dag_id in ((LIGHT, "light"), (HEAVY, "heavy"), (FAN, "fan")):
            own, wall = other.run(dag_id)
            report.add(f"{name}; Airflow", "s", wall)
            report.add(f"{name}, the run's own duration; Airflow", "s", own)
            if dag_id == "light":
                report.add("lag between two of them, median; Airflow", "ms", percentile(other.lags("light"), 50))
        report.add(f"{ALONE}, all done; Airflow", "s", other.singles(SINGLES))
    time.sleep(5)
    before, began = other.cpu(), time.monotonic()
    time.sleep(options.idle_seconds)
    used = (other.cpu() - before) / (time.monotonic() - began)
    report.add("idle CPU of all processes; Airflow", "% of a core", 100 * used)
    report.add("idle PSS of all processes; Airflow", "MB", other.memory())


def _ratios(report: Report) -> None:
    """Say how much more Airflow takes of each, from medians of the same call."""
    for name, theirs in list(report.figures.items()):
        ours = report.figures.get(name.replace("; Airflow", "; Runyard"))
        if name.endswith("; Airflow") and ours is not None and ours.median:
            what = name.removesuffix("; Airflow")
            report.add(f"{what}: Airflow's as a multiple of Runyard's", "", theirs.median / ours.median)


def _work() -> float:
    code = str(ROOT / "bench" / "tasks")
    done = subprocess.run([sys.executable, "-c", _WORK], cwd=code, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    run_benchmark(measure)
