"""How long a trigger takes to be answered, at a given rate, whatever the answers before it do (open loop).

python -m bench.triggers
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import machine
from bench.bare import bare
from bench.command import run_benchmark
from bench.figures import Goal, Report, percentile
from bench.load import Job, Outcome, drive, steady
from bench.running import Running, service
from bench.singles import settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.command import Options


@dataclass(frozen=True, slots=True)
class Phase:
    """One pattern of triggers."""

    name: str
    dag_id: str
    moments: list[float]
    goal: Goal
    paused: bool = False


PHASES = (
    Phase("200/s, paused DAG", "paused", steady(200, 10), Goal(25), paused=True),
    Phase("50/s while its runs execute", "steady", steady(50, 10), Goal(40)),
    Phase("100 at once, runs execute", "burst", [0.0] * 100, Goal(300)),
)


def measure(options: Options) -> Sequence[Report]:
    """Measure on each database that was asked for; every repeat gets a service of its own."""
    with options.servers() as servers:
        reports = []
        for database in options.databases:
            report = Report("triggers", database)
            for _ in range(options.repeat):
                with service(options, servers, database, "triggers") as running:
                    machine.beside(report, options, "sqlite", url=running.database_url)
                    watch = running.neighbours()
                    for phase in PHASES:
                        _measure(report, running, phase)
                    machine.neighbours(report, watch)
                _compare(report)
            report.note(
                "latency from the moment that a request was meant to leave to the last byte of its answer; in a burst "
                "this includes connecting 100 times",
                "each is POST …/runs with an empty body, answered 201 after the commit; every run that executes is one "
                "task `true`, 4 slots",
                "client late by: its own timer and the machine's, part of the latencies above it",
                "bare FastAPI: the same requests from the same client to an application that does nothing",
            )
            reports.append(report)
    return reports


def _measure(report: Report, running: Running, phase: Phase) -> None:
    client = running.client
    client.define(phase.dag_id, {"only": {"command": ["true"]}})
    client.run(phase.dag_id)
    if phase.paused:
        client.call("PATCH", f"/dags/{phase.dag_id}", {"paused": True})
    cpu = running.pids.cpu()
    outcome = drive(
        Job(url=f"{client.url}/api/v1/dags/{phase.dag_id}/runs", headers=client.headers, moments=phase.moments)
    )
    cpu = running.pids.cpu() - cpu
    sent = len(phase.moments)
    _add(report, phase.name, outcome, phase.goal)
    report.add(f"{phase.name}, client late by, p95", "ms", percentile(outcome.late_ms, 95))
    if phase.paused:
        report.add(f"{phase.name}, CPU of the service, agent and zygote", "ms/trigger", 1000 * cpu / sent)
        return
    over = outcome.began + outcome.seconds
    ended = settle(running, phase.dag_id)
    report.add(
        f"{phase.name}, runs ended before the last answer", f"of {sent}", sum(each <= over for each in ended) - 1
    )
    if len(ended) != sent + 1:
        raise RuntimeError(f"{phase.name}: {len(ended) - 1} runs succeeded of {sent}")


def _add(report: Report, name: str, outcome: Outcome, goal: Goal) -> None:
    for percent in (50, 95, 99):
        value = percentile(outcome.latencies_ms, percent)
        report.add(f"{name}, p{percent}", "ms", value, goal if percent == 95 else None)
    report.add(f"{name}, max", "ms", max(outcome.latencies_ms))
    report.add(f"{name}, errors", "", float(sum(outcome.errors.values())), Goal(0))


def _compare(report: Report) -> None:
    """Send the same to a bare application: what client, framework and machine take alone."""
    with bare() as url:
        drive(Job(url=f"{url}/thing", connections=8, count=200))
        for phase in PHASES:
            outcome = drive(Job(url=f"{url}/thing", moments=phase.moments))
            rate = phase.name.split(",")[0].split(" while")[0]
            for percent in (50, 95):
                value = percentile(outcome.latencies_ms, percent)
                report.add_machine(f"bare FastAPI, {rate}, p{percent}", "ms", value)
            report.add_machine(f"client, {rate}", "ms CPU a request", 1000 * outcome.cpu_seconds / len(phase.moments))


if __name__ == "__main__":
    run_benchmark(measure)
