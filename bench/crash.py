"""``kill -9`` of service, agent and zygote under load, and pauses: nothing accepted is lost, nothing starts twice.

python -m bench.crash --database both
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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


#: Long enough for some hundred accepted triggers a cycle on a quiet machine.
_LONGEST_LIFE: Final = 3.0
#: In seconds; what stands still does so for longer.
_LEASE: Final = 15
_PAUSE: Final = _LEASE + 5.0


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
                f"{options.cycles} cycles a repeat; 4 clients trigger diamonds, single tasks and tasks of seconds, "
                "repeat what was not answered with the same Idempotency-Key, cancel one run in ten (of the long ones, "
                "half) and clear half of these; what is paused "
                f"stands still (SIGSTOP) for {_PAUSE:g} s, the lease is {_LEASE} s; the history checker judges the "
                "event log, the tasks' journal and the clients' log",
                "`other processes` here includes the service itself",
            )
            reports.append(report)
    return reports


def _loop(report: Report, servers: Servers, database: str, cycles: int, seed: int) -> None:
    home, port = servers.home(), free_port()
    made = Service(home, {**servers.database(database), "RUNYARD_WORKER_LEASE": str(_LEASE)})
    try:
        made.start("--port", str(port))
        result = crash_loop(
            made,
            home.parent / f"{home.name}.journal",
            cycles=cycles,
            seed=seed,
            port=port,
            longest_life=_LONGEST_LIFE,
            restart_database=servers.postgres.restart if database == "postgres" else None,
            pause=_PAUSE,
        )
    finally:
        made.end()
    total = result.report.total
    report.add("kills of the service", "", result.kills["service"], Goal(20, "at least"))
    report.add("kills of the agent", "", result.kills["agent"])
    report.add("kills of the zygote", "", result.kills["zygote"])
    report.add("pauses of the service", "", result.kills["pause of the service"])
    report.add("pauses of the agent", "", result.kills["pause of the agent"])
    report.add("pauses that lasted beyond the lease", "", result.pauses.total())
    report.add("restarts of the database (immediate)", "", result.kills["database"])
    report.add("runs accepted", "", result.accepted)
    report.add("requests repeated", "", result.unanswered)
    report.add("attempts started", "", result.starts)
    report.add("events checked", "", result.report.counts["events"])
    report.add("accepted work lost (I-9)", "", total["I-9"], Goal(0))
    report.add("started twice (I-3)", "", total["I-3"], Goal(0))
    report.add("limits overshot (I-12)", "", total["I-12"], Goal(0))
    other = total.total() - total["I-9"] - total["I-3"] - total["I-12"] + len(result.wrong)
    report.add("other violations", "", other, Goal(0))
    report.notes += [f"seed {seed}: {each}" for each in result.problems[:10]]


if __name__ == "__main__":
    run_benchmark(measure, databases="both", repeat=1)
