"""Retries within their budget, losses within theirs, and no try before its time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tests.simulation.checker.history import instant

if TYPE_CHECKING:
    from tests.simulation.checker.document import Task
    from tests.simulation.checker.story import Instance
    from tests.simulation.checker.violations import Line, Report

#: How many losses of infrastructure an instance survives: "the budget for losses, three of a task"
#: (docs/guides/workers.md).  No document names another.
MAX_LOSSES: Final = 3
#: Durations are counted in fractions on one side and in microseconds on the other.
_ROUNDING: Final = timedelta(milliseconds=1)


def check_budget(report: Report, task: Task | None, instance: Instance, line: Line) -> None:
    """Charge the end of an attempt to its budget, and look at what was made of it."""
    to, reason = line["to_state"], line.get("reason")
    again = to in ("up_for_retry", "scheduled")
    if line["from_state"] == "cancelling" or reason in ("drained", "rejected") or to not in ("failed", *_AGAIN):
        return
    if reason == "lost":
        instance.losses += 1
        used, most, what = instance.losses, MAX_LOSSES, "losses"
    else:
        instance.failures += 1
        if task is None:
            return
        used, most, what = instance.failures, task.retries, "failures"
    if again and used > most:
        report.add("I-20", f"tried again after {used} {what}; the budget is {most}", line)
    elif not again and used <= most:
        report.add("I-20", f"given up after {used} {what}; the budget is {most}", line)


_AGAIN: Final = ("up_for_retry", "scheduled")


def check_delay(report: Report, task: Task | None, instance: Instance, line: Line) -> None:
    """Compare a retry with the time that it had to wait for."""
    ended = instance.row
    if task is None or ended is None or ended.get("reason") == "lost" or not (line.get("at") and ended.get("at")):
        return
    waited = instant(line["at"]) - instant(ended["at"])
    shortest = task.shortest_delay(instance.failures)
    if waited < shortest - _ROUNDING:
        report.add("I-15", f"tried again after {waited}; it has to wait {shortest}", ended, line)
