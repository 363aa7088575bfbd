"""Lists of 100 runs out of 100,000, and what a past of a million task instances costs those who work today.

python -m bench.lists --database both
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from bench import machine
from bench.chain import LENGTH, chain
from bench.command import run_benchmark
from bench.fanout import SLOTS, WIDTH, fan
from bench.figures import Goal, Report, percentile
from bench.load import Job, drive
from bench.past import BIG, RUNS, TASKS
from bench.running import Running, service
from bench.singles import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.command import Options

PAGE = 100
_REQUESTS = 60
_STEP = 1000
_SINGLES = 100
#: Old and new service take turns; the median of so many pairs is one value.
_PAIRS = 5
_P95 = Goal(15)
_SAME = Goal(1.2)


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that somebody asks for."""

    name: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    goal: Goal | None = _P95


LISTINGS = (
    Listing("all runs", "/runs"),
    Listing("of a DAG with 50,000 runs", f"/dags/{BIG}/runs"),
    Listing("of a DAG with 1,000 runs", "/dags/past_7/runs"),
    Listing("by state, most runs have it", "/runs", (("state", "success"),)),
    Listing("by state, one run in ten has it", "/runs", (("state", "failed"),)),
    Listing("by two states", "/runs", (("state", "failed"), ("state", "cancelled"))),
    Listing("by state, no run has it", "/runs", (("state", "running"),)),
    Listing("of that DAG by state, its 50 oldest", f"/dags/{BIG}/runs", (("state", "cancelled"),)),
    Listing("of that DAG by state, none of its", f"/dags/{BIG}/runs", (("state", "failed"),)),
    Listing("by label, one run in ten has it", "/runs", (("label", "team=blue"),)),
    Listing("of that DAG by label", f"/dags/{BIG}/runs", (("label", "team=blue"),)),
    Listing("of another DAG by label, none of its", "/dags/past_7/runs", (("label", "team=blue"),), None),
)


def measure(options: Options) -> Sequence[Report]:
    """Measure on each database that was asked for."""
    with options.servers() as servers:
        reports = []
        for database in options.databases:
            slots = str(SLOTS)
            with (
                service(options, servers, database, "lists", past=True, RUNYARD_LOCAL_PARALLELISM=slots) as old,
                service(options, servers, database, "lists-empty", RUNYARD_LOCAL_PARALLELISM=slots) as new,
            ):
                reports += [_lists(old, database, options), _pasts(old, new, database, options)]
        return reports


def _lists(running: Running, database: str, options: Options) -> Report:
    report = Report("lists", database)
    places = {listing: _places(running, listing) for listing in LISTINGS}
    for _ in range(options.repeat):
        machine.beside(report, options, "sqlite", url=running.database_url)
        watch = running.neighbours()
        for listing in LISTINGS:
            _pages(report, running, listing, places[listing])
        machine.neighbours(report, watch)
    report.note(
        f"{PAGE} of {RUNS:,} runs, {_REQUESTS} requests a page, one after the other on a kept connection, first, "
        "middle and last page in turns; from sending the request to the last byte of its answer",
        "the last page is reached by cursors, as everybody has to; where a list has one page there is no middle",
        "a label is looked up before a DAG: a list of the runs of one DAG with a label that only others have reads "
        "every run with that label",
    )
    return report


def _places(running: Running, listing: Listing) -> dict[str, str]:
    """Return the paths of the first, the middle and the last page of a list."""
    cursors, count = _walk(running, listing, _STEP, None)
    if count <= PAGE:
        return {"first": _path(listing, PAGE, None)}
    # The end of it once more, in small steps.
    last, _ = _walk(running, listing, PAGE, cursors[-2] if len(cursors) > 1 else None)
    # One that is full, as the others are.
    places = {"first": None, "middle": cursors[len(cursors) // 2], "last": last[-2]}
    return {name: _path(listing, PAGE, cursor) for name, cursor in places.items()}


def _walk(running: Running, listing: Listing, limit: int, cursor: str | None) -> tuple[list[str | None], int]:
    """Return the cursors from *cursor* to the last page, and how many runs were on the way."""
    cursors, count = [cursor], 0
    while True:
        page = running.client.call("GET", _path(listing, limit, cursors[-1]))
        count += len(page["items"])
        if page["next_cursor"] is None:
            return cursors, count
        cursors.append(page["next_cursor"])


def _path(listing: Listing, limit: int, cursor: str | None) -> str:
    position = (("limit", str(limit)), *((("cursor", cursor),) if cursor else ()))
    return f"{listing.path}?{urlencode((*listing.query, *position))}"


def _pages(report: Report, running: Running, listing: Listing, places: dict[str, str]) -> None:
    times: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(_REQUESTS):
        for name, path in places.items():
            began = time.monotonic()
            running.client.text("GET", path)
            times[name].append(1000 * (time.monotonic() - began))
    for name, values in times.items():
        report.add(f"{listing.name}, {name} page, p95", "ms", percentile(values, 95), listing.goal)
    if "last" in times:
        ratio = statistics.median(times["last"]) / statistics.median(times["first"])
        report.add(f"{listing.name}: the last page as a multiple of the first, medians", "", ratio, _SAME)


def _pasts(old: Running, new: Running, database: str, options: Options) -> Report:
    report = Report("a past of a million task instances", database)
    for each in (old, new):
        each.client.define("chain", chain({"command": ["true"]}))
        each.client.define("fan", fan({"command": ["true"]}))
        for dag_id in ("chain", "fan"):
            each.client.run(dag_id)
    works: dict[str, Callable[[Running], float]] = {
        f"{LENGTH} dependent commands": lambda running: _seconds(running, "chain"),
        f"1 → {WIDTH} → 1 commands": lambda running: _seconds(running, "fan"),
        f"{_SINGLES} single runs": _singles,
    }
    for number in range(options.repeat):
        machine.beside(report, options, "spawn", "fork", "sqlite", url=old.database_url)
        for name, work in works.items():
            # Whoever comes second finds warmer caches.
            turns = ((old, new), (new, old)) * _PAIRS
            times: dict[int, list[float]] = {id(old): [], id(new): []}
            for pair in turns[number % 2 :][:_PAIRS]:
                for each in pair:
                    times[id(each)].append(work(each))
            without, beside = statistics.median(times[id(new)]), statistics.median(times[id(old)])
            report.add(f"{name}, no past", "s", without)
            report.add(f"{name}, with a past", "s", beside)
            report.add(f"{name}: with a past as a multiple of without", "", beside / without, _SAME)
    report.note(
        f"{RUNS:,} runs, {RUNS * TASKS:,} task instances, as many attempts and events, made by SQL (bench/past.py); "
        f"two services side by side that take turns, {_PAIRS} times each a repeat, medians"
    )
    return report


def _seconds(running: Running, dag_id: str) -> float:
    began = time.monotonic()
    running.client.run(dag_id)
    return time.monotonic() - began


def _singles(running: Running) -> float:
    client = running.client
    dag_id = f"single{time.monotonic_ns()}"
    client.define(dag_id, {"only": {"command": ["true"]}})
    job = Job(url=f"{client.url}/api/v1/dags/{dag_id}/runs", headers=client.headers, connections=8, count=_SINGLES)
    outcome = drive(job)
    ended = settle(running, dag_id)
    if len(ended) != _SINGLES:
        raise RuntimeError(f"{len(ended)} of {_SINGLES} single runs succeeded")
    return max(ended) - outcome.began


if __name__ == "__main__":
    run_benchmark(measure)
