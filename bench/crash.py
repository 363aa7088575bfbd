"""``kill -9`` of service and agent under load, again and again: nothing accepted is lost, nothing starts twice.

python -m bench.crash --database both
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import machine
from bench.command import run_benchmark
from bench.figures import Goal, Report
from bench.ports import free_port
from bench.processes import Neighbours
from tests.system.crash import crash_loop
from tests.system.service import Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.command import Options, Servers


def measure(options: Options) -> Sequence[Report]:
    """Run the loop on each database that was asked for."""
    with options.servers() as servers:
        reports = []
        for database in options.databases:
            report = Report("crash", database)
            for seed in range(1, options.repeat + 1):
                machine.beside(report, options, "spawn", "sqlite")
                watch = Neighbours([])
                _loop(report, servers, database, options.cycles, seed)
                machine.neighbours(report, watch)
            report.note(
                f"{options.cycles} cycles a repeat; 3 clients trigger a diamond of 4 tasks and repeat what was not "
                "answered with the same Idempotency-Key; judged from the clients' log, the tasks' journal and the API",
                "`other processes` here includes the service itself",
            )
            reports.append(report)
    return reports


def _loop(report: Report, servers: Servers, database: str, cycles: int, seed: int) -> None:
    home, port = servers.home(), free_port()
    made = Service(home, servers.database(database))
    try:
        made.start("--port", str(port))
        result = crash_loop(
            made, home.parent / f"{home.name}.journal", cycles=cycles, seed=seed, port=port, agents_too=True
        )
    finally:
        made.end()
    lost = [each for each in result.problems if each.endswith(" is gone")]
    twice = [each for each in result.problems if each.endswith((" times", "under one fence"))]
    report.add("kills of the service", "", result.kills["service"], Goal(20, "at least"))
    report.add("kills of the agent", "", result.kills["agent"])
    report.add("runs accepted", "", result.accepted)
    report.add("requests repeated", "", result.repeated)
    report.add("attempts started", "", result.starts)
    report.add("accepted runs lost", "", len(lost), Goal(0))
    report.add("attempts started twice", "", len(twice), Goal(0))
    report.add("other problems", "", len(result.problems) - len(lost) - len(twice), Goal(0))
    report.notes += [f"seed {seed}: {each}" for each in result.problems[:10]]


if __name__ == "__main__":
    run_benchmark(measure, databases="both", repeat=1)
