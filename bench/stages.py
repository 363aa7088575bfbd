"""Where the milliseconds between two tasks go: what the API's times and the tasks' own clocks say together."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench.figures import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.figures import Report


def add_stages(report: Report, name: str, tasks: Sequence[dict[str, Any]], bodies: Sequence[int]) -> None:
    """Note the median of each part; *bodies* are the clocks that the tasks of a chain printed, in nanoseconds."""
    parts: dict[str, list[float]] = {}
    for (before, after), (earlier, later) in zip(pairwise(tasks), pairwise(bodies), strict=True):
        ended, queued, started = (_at(before["ended_at"]), _at(after["queued_at"]), _at(after["started_at"]))
        moments = {
            "body to its exit seen": ended - earlier / 1e9,
            "exit seen to the transaction of its end": queued - ended,
            "that to the transaction of the next start": started - queued,
            "that to the next body": later / 1e9 - started,
        }
        for part, seconds in moments.items():
            parts.setdefault(part, []).append(1000 * seconds)
    for part, values in parts.items():
        report.add(f"{name}: {part}, median", "ms", percentile(values, 50))


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
