"""Many seeds, on as many cores as one likes."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from tests.simulation.scenario import run_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.simulation.scenario import Result, StoreKind

#: What every campaign of some length has to have met, or it has proved nothing about it.
FAULTS = (
    "api.outage", "broker.ack_lost", "broker.away", "broker.cut", "broker.disorder", "broker.flush", "broker.late",
    "broker.lost", "broker.redelivered", "broker.restart", "broker.slow", "broker.twice", "clock.back", "clock.forward",
    "clock.stands", "clone", "crash.agent", "crash.api", "crash.feeder", "crash.scheduler", "crash.zygote", "db.again",
    "db.crash", "db.crawls", "db.cut", "db.error", "db.lost_reply", "db.outage", "db.refused", "db.reset", "db.restart",
    "db.slow", "db.unavailable", "disk.broken", "disk.full", "freeze.agent", "freeze.host", "freeze.service",
    "hint.lost", "host.gone", "http.lost_answer", "http.lost_request", "http.slow", "link.broken", "net.partition",
    "stop.agent", "stop.api", "stop.feeder", "stop.scheduler",
)  # fmt: skip
#: Those that a few dozen seeds meet.
COMMON = (
    "api.outage", "broker.away", "clock.back", "clock.forward", "crash.agent", "crash.scheduler", "db.error",
    "db.lost_reply", "db.outage", "db.refused", "db.statement", "freeze.agent", "freeze.host", "hint.lost",
    "http.lost_answer", "http.lost_request", "link.broken", "net.partition",
)  # fmt: skip
#: What only the real SQL can meet.
SQL_FAULTS = ("db.idle_in_transaction", "db.lock_timeout", "db.skip_locked", "db.stall", "db.statement")


def wanted(store: StoreKind) -> tuple[str, ...]:
    """Return every fault that can strike over *store*."""
    return FAULTS + SQL_FAULTS if store == "sqlite" else FAULTS


@dataclass(slots=True)
class Campaign:
    """What came of many seeds."""

    seeds: int = 0
    bad: list[Result] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    #: Virtual seconds and real ones, the latter over all cores and by the clock on the wall.
    lasted: float = 0.0
    worked: float = 0.0
    took: float = 0.0

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.counts += result.counts
        self.lasted += result.lasted
        self.worked += result.took
        if not result.is_good:
            self.bad.append(result)

    def missed(self, wanted: Sequence[str]) -> list[str]:
        """Return which faults never struck."""
        return [name for name in wanted if not self.counts[name]]

    def __str__(self) -> str:
        rate = self.seeds / max(self.took, 0.001)
        ratio = self.lasted / max(self.took, 0.001)
        return (
            f"{self.seeds} seeds, {len(self.bad)} failing, {self.took:.1f} s ({rate:.1f} seeds/s; "
            f"{ratio:,.0f} simulated seconds a second)"
        )


def run(
    seeds: Sequence[int], store: StoreKind, *, jobs: int = 1, on_result: Callable[[Result], None] | None = None
) -> Campaign:
    """Simulate *seeds*, *jobs* at a time."""
    campaign = Campaign()
    began = perf_counter()
    for result in _results(seeds, store, jobs):
        campaign.add(result)
        if on_result is not None:
            on_result(result)
    campaign.took = perf_counter() - began
    return campaign


def _results(seeds: Sequence[int], store: StoreKind, jobs: int) -> Iterator[Result]:
    one = partial(_one, store=store)
    if jobs <= 1:
        yield from map(one, seeds)
        return
    # Fresh interpreters: a fork would carry over threads and connections of whoever called.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(one, seeds, chunksize=4)


def _one(seed: int, store: StoreKind) -> Result:
    result = run_seed(seed, store)
    if result.is_good:
        result.lines = []  # nobody reads it, and it would have to cross from process to process
    return result
