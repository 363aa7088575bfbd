"""Requests: the lines of the clients' log that are one, and what came of them."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation.checker.violations import Line, Report

OK: Final = range(200, 300)
REFUSED: Final = range(400, 500)
#: What a repeat of an accepted request is not answered; who asks too often, or with a key that is revoked, is refused.
_NO_MORE: Final = (404, 409, 410, 412, 422)
#: What an answer tells of the run as it stands when it is sent, where a trigger waited for its end.
_MOVES: Final = ("state", "reason", "started_at", "ended_at", "duration")


class Request:
    """One request: all lines under its key, or one line without."""

    def __init__(self, first: Line) -> None:
        self.lines = [first]
        self.op: str = first["op"]
        self.dag_id: str | None = first.get("dag_id")
        self.run_id: str | None = first.get("run_id")
        #: What was sent; None where the log does not say.
        self.body: dict[str, Any] | None = first.get("body")

    @property
    def told(self) -> list[Line]:
        """The answers that say that it has happened."""
        return [line for line in self.lines if line["status"] in OK]

    @property
    def is_unsure(self) -> bool:
        """Whether at least one of its lines leaves open if it has happened."""
        return any(line["status"] is None or line["status"] >= 500 for line in self.lines)

    @property
    def is_open(self) -> bool:
        """Whether nobody knows if it has happened."""
        return self.is_unsure and not self.told

    @property
    def is_possible(self) -> bool:
        """Whether it may have had an effect."""
        return self.is_unsure or bool(self.told)

    @property
    def is_dry(self) -> bool:
        return bool((self.body or {}).get("dry_run"))

    @property
    def answer(self) -> dict[str, Any]:
        """What it was answered first."""
        found = self.told[0].get("answer") if self.told else None
        return found if isinstance(found, dict) else {}

    @property
    def sent(self) -> float:
        """When it was sent first: nothing of it has happened before."""
        return min((line["t0"] for line in self.lines if line.get("t0") is not None), default=-math.inf)

    @property
    def done(self) -> float:
        """When its first answer was there: it has happened before."""
        return min((line["t1"] for line in self.told if line.get("t1") is not None), default=math.inf)


def requests(calls: Iterable[Line]) -> dict[str, list[Request]]:
    """Return all requests by what they ask for, in the order of their first lines."""
    found: dict[str, list[Request]] = defaultdict(list)
    keyed: dict[tuple[Any, ...], Request] = {}
    for line in calls:
        name = (line["op"], line.get("dag_id"), line.get("key"))
        if line.get("key") is not None and name in keyed:
            keyed[name].lines.append(line)
            continue
        request = Request(line)
        found[request.op].append(request)
        if line.get("key") is not None:
            keyed[name] = request
    return found


def judge_repeats(all_of_them: Iterable[Request], report: Report) -> None:
    """Compare the answers under each key: the first one again, whatever has happened in between."""
    for request in all_of_them:
        told = request.told
        if request.op == "read" or not told:
            continue  # reads have no effect, and tell what is
        report.counts["repeated answers"] += len(told) - 1
        differing = [line for line in told[1:] if _what(line) != _what(told[0])]
        if differing:
            report.add("I-11", "repeats of one request were answered differently", told[0], *differing)
        for line in request.lines:
            if line["status"] in _NO_MORE and line.get("t0") is not None and line["t0"] > request.done:
                report.add("I-11", "a request that was accepted was refused when it was repeated", told[0], line)


def _what(line: Line) -> tuple[int, Any]:
    """Return what is the same in every answer to a request."""
    answer = line.get("answer")
    if line.get("wait") and isinstance(answer, dict):
        answer = {name: value for name, value in answer.items() if name not in _MOVES}
    return line["status"], answer
