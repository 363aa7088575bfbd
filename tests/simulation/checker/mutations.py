"""Verbs that make a bad history of a good one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from tests.simulation.checker.tale import AGENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.checker.tale import Lines, Tale
    from tests.simulation.checker.violations import Line

    Change = Callable[[Lines], object]
    Where = Callable[[Lines], int]


def at(lines: Lines, *, nth: int = 0, **match: Any) -> int:
    """Return where the *nth* line stands that has these fields; from the end where it is negative."""
    found = [place for place, line in enumerate(lines) if all(line.get(name) == match[name] for name in match)]
    return found[nth]


def drop(**match: Any) -> Change:
    return lambda lines: lines.pop(at(lines, **match))


def change(new: dict[str, Any], **match: Any) -> Change:
    return lambda lines: lines[at(lines, **match)].update(new)


def again(new: dict[str, Any] | None = None, *, later: int = 1, **match: Any) -> Change:
    """Repeat a line, a few lines *later*, with other fields."""

    def apply(lines: Lines) -> None:
        place = at(lines, **match)
        lines.insert(place + later, {**copy.deepcopy(lines[place]), **(new or {})})

    return apply


def move(to: Where, **match: Any) -> Change:
    def apply(lines: Lines) -> None:
        line = lines.pop(at(lines, **match))
        lines.insert(to(lines), line)

    return apply


def before(**match: Any) -> Where:
    return lambda lines: at(lines, **match)


def after(**match: Any) -> Where:
    return lambda lines: at(lines, **match) + 1


def add(where: Where, *new: dict[str, Any]) -> Change:
    return lambda lines: lines.__setitem__(slice(where(lines), where(lines)), [dict(line) for line in new])


def both(*changes: Change) -> Change:
    return lambda lines: [each(lines) for each in changes]


def stripped(tale: Callable[[], Tale]) -> Callable[[], Tale]:
    """Tell *tale* without what is read at the end: a mutation of its log alone would differ from that."""

    def told() -> Tale:
        made = tale()
        made.lines = [line for line in made.lines if line["type"] not in ("run", "instance", "used")]
        return made

    return told


def event(run: str, task: str, to: str, was: str, fence: int = 1, **more: Any) -> dict[str, Any]:
    line: Line = {"type": "event", "kind": f"task.{to}", "dag_id": "d", "run_id": run, "task_id": task, "map_index": -1}
    line |= {"data": {"slots": AGENT}} if to == "queued" else {}
    made = {**line, "from_state": was, "to_state": to, "try_number": fence, "actor": "scheduler", "reason": None}
    return {**made, "at": "2026-01-01T01:00:00Z", **more}


def of_run(run: str, to: str, was: str | None, **more: Any) -> Line:
    line = {"type": "event", "kind": f"run.{to}", "dag_id": "d", "run_id": run, "from_state": was, "to_state": to}
    return {**line, "actor": "scheduler", "at": "2026-01-01T01:00:00Z", **more}


def client(op: str, status: int, answer: Line | None, run: str = "r") -> Line:
    """Return a request that is sent after everything else."""
    line: Line = {"type": "call", "client": "c", "dag_id": "d", "key": None, "body": {}, "t0": 90.0, "t1": 90.1}
    return {**line, "op": op, "run_id": run, "status": status, "answer": answer}


def end(lines: Lines) -> int:
    return len(lines)


def cut(first: Where, last: Where = end, *new: Line) -> Change:
    """Put *new* in the place of the lines from *first* up to *last*."""

    def apply(lines: Lines) -> None:
        lines[first(lines) : last(lines)] = copy.deepcopy(list(new))

    return apply


def put(*new: Line) -> Change:
    """Add lines at the end."""
    return lambda lines: lines.extend(copy.deepcopy(list(new)))


def every(change: Callable[[Line], Line | None]) -> Change:
    """Change every line, or leave it out; the events keep their numbers."""

    def apply(lines: Lines) -> None:
        lines[:] = [changed for line in lines if (changed := change(line)) is not None]

    return apply
