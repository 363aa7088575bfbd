"""What one completion costs in a DAG of ten tasks and in one of ten thousand: it has to be the same.

The command that ends an attempt, tells its downstream and gives the next task to the supervisor that asked, with the
real store, without HTTP and processes.  ``bench.large`` has it in its figures.

python -m bench.completion --database both
"""

from __future__ import annotations

import asyncio
import resource
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from bench import machine
from bench.command import run_benchmark
from bench.figures import Goal, Report, percentile
from bench.shapes import layers
from metastore import migrate
from metastore.postgres import PostgresStore
from metastore.settings import DatabaseSettings
from metastore.sqlite import SqliteStore
from runyard.world import SystemClock, SystemEntropy
from tests.metastore.flow import Flow
from tests.world import FakeClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.command import Options, Servers
    from metastore.commands.admission import Admitted
    from metastore.store import Store

ENDS: Final = 400
_SLOTS: Final = 4
_FLAT: Final = Goal(1.2)
#: So many tasks at least have not ended, so that each end has a next task to admit: small runs go on beside each other.
_OPEN: Final = 40
#: Tasks a DAG: layers, and tasks in each.
_SIZES: Final = {10: (2, 5), 10_000: (100, 100)}


class Work:
    """A DAG of some size, and attempts of it that run."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._running: list[Admitted] = []
        self._last_layer = ""
        self._size = 0
        #: How many tasks of the runs that were begun have not ended.
        self._open = 0
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    async def define(self, number: int, width: int) -> None:
        self._last_layer = f"l{number - 1:03}"
        self._size = number * width
        await self._flow.slots(_SLOTS)
        await self._flow.put(layers(number, width, {"command": ["true"]}), max_active_runs=1000)

    async def end_one(self) -> None:
        """End an attempt that has five tasks downstream, and note what that took; all else is done and not counted."""
        while True:
            while self._open < _OPEN or not self._running:
                await self._begin()
            one = self._running.pop(0)
            self._open -= 1
            if not one.labels["task_id"].startswith(self._last_layer):
                break
            self._running += (await self._flow.end(one.attempt_id, more=True)).admitted
        cpu, began = _cpu(), time.monotonic()
        noted = await self._flow.end(one.attempt_id, more=True)
        self.seconds.append(time.monotonic() - began)
        self.cpu.append(_cpu() - cpu)
        assert noted.accepted
        self._running += noted.admitted

    async def _begin(self) -> None:
        self._open += self._size
        run, admitted = await self._flow.trigger()
        while not (await self._flow.run(run)).materialised:
            admitted += await self._flow.go_on(run)
        for one in admitted:
            await self._flow.start(one.attempt_id)
        self._running += admitted


def measure(options: Options) -> Sequence[Report]:
    """Measure on each database that was asked for."""
    with options.servers() as servers:
        return [_measure(options, servers, database) for database in options.databases]


def _measure(options: Options, servers: Servers, database: str) -> Report:
    report = Report("completion", database)
    for _ in range(options.repeat):
        urls = {size: _database(servers, database) for size in _SIZES}
        machine.beside(report, options, "sqlite", url=urls[10] if database == "postgres" else None)
        asyncio.run(_repeat(report, urls))
    report.note(
        f"{ENDS} attempts of each DAG end in turns, {_SLOTS} run at a time; from the call of the command to its "
        "commit; every end tells five tasks downstream, admits the next task and is answered with its body; layers of "
        "5 and of 100 tasks with five upstreams each, ends in the last layer are not counted",
        "CPU: of this process, threads included; not of a Postgres server",
    )
    return report


async def _repeat(report: Report, urls: dict[int, str]) -> None:
    async with AsyncExitStack() as stack:
        works: dict[int, Work] = {}
        for size, (number, width) in _SIZES.items():
            store = await _open(urls[size])
            stack.push_async_callback(store.close)
            works[size] = Work(Flow(store, FakeClock()))
            await works[size].define(number, width)
        for work in works.values():
            for _ in range(20):
                await work.end_one()
            work.seconds, work.cpu = [], []
        for _ in range(ENDS):
            for work in works.values():
                await work.end_one()
    for size, work in works.items():
        report.add(f"end of one of {size:,} tasks, median", "ms", 1000 * percentile(work.seconds, 50))
        report.add(f"end of one of {size:,} tasks, p95", "ms", 1000 * percentile(work.seconds, 95))
        report.add(f"end of one of {size:,} tasks, CPU, mean", "ms", 1000 * sum(work.cpu) / len(work.cpu))
    small, big = (works[size] for size in _SIZES)
    report.add(
        "10,000 tasks as a multiple of 10, median",
        "",
        percentile(big.seconds, 50) / percentile(small.seconds, 50),
        _FLAT,
    )
    report.add("10,000 tasks as a multiple of 10, CPU", "", sum(big.cpu) / sum(small.cpu), _FLAT)


def _database(servers: Servers, kind: str) -> str:
    folder = servers.home()
    folder.mkdir()
    url = servers.postgres.create() if kind == "postgres" else f"sqlite:///{folder / 'runyard.db'}"
    migrate.upgrade(url)
    return url


async def _open(url: str) -> Store:
    settings = DatabaseSettings(url)
    if url.startswith("sqlite"):
        return await SqliteStore.open(settings.path, clock=SystemClock(), entropy=SystemEntropy())
    return await PostgresStore.open(settings, clock=SystemClock(), entropy=SystemEntropy())


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    run_benchmark(measure)
