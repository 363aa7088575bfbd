"""What clients were told of runs, held against the log.

Accepted work survives, refused work is not there, repeats have one effect.  DAGs are :mod:`.definitions`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.checker.asked import OK, judge_repeats, requests
from tests.simulation.checker.definitions import Definitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.simulation.checker.asked import Request
    from tests.simulation.checker.history import History, RunKey
    from tests.simulation.checker.replay import Replay
    from tests.simulation.checker.story import Run
    from tests.simulation.checker.violations import Line, Report

#: What a run is after an answered cancel, and after a clear that touched something.
_STOPPED: Final = ("cancelling", "cancelled")
_OPEN: Final = ("queued", "running")


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer that tells, or implies, a state of a run: one that it had between *sent* and *done*."""

    states: tuple[str, ...]
    sent: float
    done: float
    line: Line


class Clients:
    """Judges the clients' log."""

    def __init__(self, history: History, replay: Replay, report: Report) -> None:
        self._history = history
        self._runs = replay.runs
        self._report = report
        self._deleted = history.deleted()
        self._requests = requests(history.calls)
        self._stored = {(line["dag_id"], line["run_id"]) for line in history.runs}

    def judge(self) -> None:
        """Find every violation that the clients' log shows."""
        self._report.counts["calls"] += len(self._history.calls)
        judge_repeats(chain.from_iterable(self._requests.values()), self._report)
        self._triggers()
        self._cancels()
        self._clears()
        self._reads()
        Definitions(self._history, self._requests, self._report).judge()

    def _triggers(self) -> None:
        answered: dict[RunKey, Line] = {}
        asked: set[RunKey] = set()
        perhaps: Counter[str] = Counter()
        uncertain: set[str] = set()
        for request in self._of("trigger"):
            dag_id = request.dag_id or ""
            if request.is_unsure:
                uncertain.add(dag_id)
            if request.told:
                self._accepted(request, answered)
            elif request.is_unsure and request.run_id is None:
                perhaps[dag_id] += 1
            elif request.is_unsure:
                asked.add((dag_id, request.run_id or ""))
        if self._history.setup.clients:
            self._uncaused(answered.keys() | asked, perhaps, uncertain)

    def _of(self, op: str) -> Sequence[Request]:
        return self._requests.get(op, ())

    def _uncaused(self, caused: set[RunKey], perhaps: Counter[str], uncertain: set[str]) -> None:
        """Look for runs that no request could have made."""
        extra: dict[str, list[Run]] = defaultdict(list)
        for key, run in self._runs.items():
            if key not in caused and self._by_a_key(run):
                extra[key[0]].append(run)
        for dag_id, runs in extra.items():
            for run in runs[perhaps[dag_id] :]:
                if dag_id in uncertain:
                    self._report.add("I-11", "one request made more than one run", run.states[0][1])
                else:
                    self._report.add("I-10", "nobody was answered that this run is there", run.states[0][1])

    def _by_a_key(self, run: Run) -> bool:
        return bool(run.states) and run.states[0][1]["actor"].startswith("key:")

    def _accepted(self, request: Request, answered: dict[RunKey, Line]) -> None:
        told, dag_id = request.told, request.dag_id or ""
        ids = [line["answer"]["run_id"] for line in told]
        self._report.counts["accepted triggers"] += 1
        for run_id in dict.fromkeys(ids):
            key = (dag_id, run_id)
            if key in answered:
                self._report.add("I-11", f"two requests were answered with the run {run_id}", answered[key], *told)
            answered[key] = told[0]
            self._exists(key, told[0])
        run = self._runs.get((dag_id, ids[0]))
        version = request.answer.get("version")
        if run is not None and version is not None and run.version not in (None, version):
            self._report.add("I-6", f"the run was pinned to version {version} and is at {run.version} now", told[0])

    def _exists(self, key: RunKey, line: Line) -> None:
        if key[0] in self._deleted:
            return
        if key not in self._runs:
            self._report.add("I-9", f"the accepted run {key[1]} is not in the log", line)
        elif self._stored and key not in self._stored:
            self._report.add("I-9", f"the accepted run {key[1]} is gone", line, self._runs[key].row)

    def _cancels(self) -> None:
        by_run = _by_run(self._of("cancel"))
        for key, asked in by_run.items():
            run = self._runs.get(key)
            effects = [] if run is None else run.cancels
            told = [line for request in asked for line in request.told]
            if told and not effects and key[0] not in self._deleted:
                self._report.add("I-9", "an answered cancel is not in the log", told[0], run.row if run else None)
            mine = [row for row in effects if row["actor"].startswith("key:")]
            possible = [request for request in asked if request.is_possible]
            if len(mine) > len(possible) > 0:
                self._report.add("I-11", "one cancel has had more than one effect", possible[0].lines[0], *mine)
            self._nobody("cancel", mine, possible)
        self._unasked("cancel", by_run)

    def _clears(self) -> None:
        by_run = _by_run(request for request in self._of("clear") if not request.is_dry)
        for key, asked in by_run.items():
            run = self._runs.get(key)
            if key[0] in self._deleted:
                continue
            possible = [request for request in asked if request.is_possible]
            self._cleared(run, possible)
            reopened = [] if run is None else run.reopenings
            if len(reopened) > len(possible) > 0:
                self._report.add("I-11", f"{len(possible)} clears have opened the run {len(reopened)} times",
                                 possible[0].lines[0], *reopened)  # fmt: skip
            self._nobody("clear", [] if run is None else [*run.clears, *reopened], possible)
        self._unasked("clear", by_run)

    def _cleared(self, run: Run | None, possible: Sequence[Request]) -> None:
        """Tie what each clear was answered to its own events: an instance that it touched went to pending once."""
        fenced = all(isinstance(item, dict) and "try_number" in item for one in possible for item in _items(one))
        answered: dict[tuple[Any, ...], list[Line]] = defaultdict(list)
        happened: dict[tuple[Any, ...], list[Line]] = defaultdict(list)
        for request in possible:
            self._report.counts["accepted clears"] += bool(_items(request))
            for item in _items(request):
                answered[_instance(item, fenced=fenced)].append(request.told[0])
        for row in run.clears if run else ():
            happened[_instance(row, fenced=fenced)].append(row)
        unsure = [request for request in possible if request.is_open]
        lost = False
        for name in dict.fromkeys((*answered, *happened)):
            told, rows = answered[name], happened[name]
            if len(told) > len(rows):
                lost = True
                what = f"{len(told)} answered clears have touched {name[0]}, and the log has {len(rows)}"
                self._report.add("I-9", what, *told, *rows)
            elif len(rows) > len(told) + len(unsure) and possible and not lost:
                what = f"{name[0]} was cleared {len(rows)} times, and {len(told)} clears were answered so"
                self._report.add("I-11", what, *rows, *told, *(one.lines[0] for one in unsure))

    def _unasked(self, what: str, by_run: dict[RunKey, list[Request]]) -> None:
        """Look at the runs of which nothing was asked."""
        for key, run in self._runs.items():
            if key in by_run:
                continue
            if what == "cancel":
                self._nobody(what, [row for row in run.cancels if row["actor"].startswith("key:")], ())
            else:
                self._nobody(what, [*run.clears, *run.reopenings], ())

    def _nobody(self, what: str, effects: Sequence[Line], possible: Sequence[Request]) -> None:
        """Nothing is cancelled or cleared that nobody asked for."""
        if self._history.setup.clients and effects and not possible:
            self._report.add("I-10", f"there is a {what} that nobody asked for", effects[0])

    def _reads(self) -> None:
        """A run that was there stays there, and no later answer knows less than an earlier one."""
        accepted = {
            (request.dag_id, request.answer["run_id"]): request.done for request in self._of("trigger") if request.told
        }
        seen: dict[RunKey, list[Seen]] = defaultdict(list)
        for line in self._history.calls:
            if line["op"] != "read" or line["status"] is None or line.get("t1") is None:
                continue
            key = (line["dag_id"], line["run_id"])
            if line["status"] in OK:
                seen[key].append(Seen((line["answer"]["state"],), line["t0"], line["t1"], line))
            run = self._runs.get(key)
            if run is None or key[0] in self._deleted:
                continue
            self._report.counts["reads"] += 1
            if line["status"] == 404 and line["t0"] > accepted.get(key, math.inf):
                self._report.add("I-9", "an accepted run was not found", line, run.states[0][1])
        for request in (*self._of("cancel"), *self._of("clear")):
            states = _implied(request)
            if states and request.told:
                key = (request.dag_id or "", request.run_id or "")
                seen[key].append(Seen(states, request.sent, request.done, request.told[0]))
        for key, answers in seen.items():
            run = self._runs.get(key)
            if run is not None and key[0] not in self._deleted:
                _in_order(self._report, run, sorted(answers, key=lambda one: one.sent))


def _in_order(report: Report, run: Run, answers: Sequence[Seen]) -> None:
    states = [state for state, _ in run.states]
    known: list[tuple[float, int, Line]] = []  # when an answer was there, and which state it told
    for one in answers:
        least, witness = max(((at, seen) for done, at, seen in known if done < one.sent),
                             key=lambda pair: pair[0], default=(0, None))  # fmt: skip
        place = next((at for at in range(least, len(states)) if states[at] in one.states), None)
        if place is not None:
            known.append((one.done, place, one.line))
        elif one.line["op"] == "read" or (one.line["op"] == "cancel" and run.cancels):
            what = f"{one.line['op']}: the run was told to be {' or '.join(one.states)}, which it was no more or never"
            report.add("I-9", what, one.line, witness, run.row)


def _implied(request: Request) -> tuple[str, ...]:
    """Return the states of which the run was in one when the request had happened."""
    if request.op == "cancel":
        state = request.answer.get("state")
        return _STOPPED if state is None else (state,)
    return _OPEN if _items(request) and not request.is_dry else ()


def _items(request: Request) -> list[Any]:
    """Return the instances that a clear was answered to have touched."""
    found: list[Any] = request.answer.get("items") or []
    return found


def _instance(item: Any, *, fenced: bool) -> tuple[Any, ...]:
    if isinstance(item, str):
        return item, -1
    index = item.get("map_index")
    name = (item["task_id"], -1 if index is None else index)
    return (*name, item["try_number"]) if fenced else name


def _by_run(asked: Iterable[Request]) -> dict[RunKey, list[Request]]:
    found: dict[RunKey, list[Request]] = defaultdict(list)
    for request in asked:
        found[request.dag_id or "", request.run_id or ""].append(request)
    return found
