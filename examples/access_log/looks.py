"""Three looks at one log, each a function of its path.  They run at the same time."""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Hit(NamedTuple):
    """One line of the log."""

    hour: int
    path: str
    status: int
    millis: int


def hits(path: str) -> Iterator[Hit]:
    """Yield the lines of the log; say on stderr which ones make no sense, and go on."""
    with Path(path).open() as file:
        for number, text in enumerate(file, 1):
            try:
                at, _client, _method, where, status, millis = text.split()
                yield Hit(int(at[11:13]), where, int(status), int(millis))
            except ValueError:
                print(f"line {number} makes no sense: {text!r}", file=sys.stderr)


def traffic(path: str) -> dict:
    """Return how many hits each hour had, and the busiest one."""
    hours = Counter(hit.hour for hit in hits(path))
    for hour in range(24):
        print(f"{hour:02}:00 {'#' * (60 * hours[hour] // max(hours.values()))} {hours[hour]}")
    busiest = max(hours, key=hours.__getitem__)
    return {"hits": hours.total(), "busiest_hour": busiest, "by_hour": [hours[hour] for hour in range(24)]}


def errors(path: str, alarm_percent: float) -> list[dict]:
    """Return the hours of each path in which more than *alarm_percent* of the hits were server errors."""
    seen: Counter[tuple[str, int]] = Counter()
    bad: Counter[tuple[str, int]] = Counter()
    for hit in hits(path):
        seen[hit.path, hit.hour] += 1
        bad[hit.path, hit.hour] += hit.status >= 500
    found = [
        {"path": where, "hour": hour, "percent": round(100 * bad[where, hour] / total, 1), "errors": bad[where, hour]}
        for (where, hour), total in seen.items()
        if bad[where, hour] > 2 and 100 * bad[where, hour] / total > alarm_percent
    ]
    found.sort(key=lambda one: (one["path"], one["hour"]))
    print(f"{len(found)} hours of {len(seen)} are over {alarm_percent} %")
    return found


def slowest(path: str) -> list[dict]:
    """Return each path with its median and its 95th percentile in milliseconds, slowest first."""
    waits: defaultdict[str, list[int]] = defaultdict(list)
    for hit in hits(path):
        waits[hit.path].append(hit.millis)
    rows = []
    for where, millis in waits.items():
        millis.sort()
        rows.append({"path": where, "p50": millis[len(millis) // 2], "p95": millis[len(millis) * 95 // 100]})
    rows.sort(key=lambda one: -one["p95"])
    print("\n".join(f"{row['path']:<10} p50 {row['p50']:>5} ms   p95 {row['p95']:>5} ms" for row in rows))
    return rows
