"""What tasks wrote themselves, held against the log: every start of user code, its order, and its end."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.simulation.checker.asked import requests

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation.checker.asked import Request
    from tests.simulation.checker.history import History
    from tests.simulation.checker.replay import Replay
    from tests.simulation.checker.story import Attempt, InstanceKey, Run
    from tests.simulation.checker.violations import Line, Report

_ENDS = ("end", "fail")
#: For how many seconds what wakes up with its host may write on, until it is killed.
_WAKING = 2.0
#: What is counted of that.
WOKEN = "superseded or cancelled attempts that wrote on as their host woke up"


@dataclass(slots=True)
class _Ran:
    """One execution of user code."""

    start: Line
    #: Its place in the journal.
    place: int
    #: What it wrote last so far, of any kind.
    last: Line
    last_place: int
    end: Line | None = None
    end_place: int = 0


class Journal:
    """The executions, by attempt."""

    def __init__(self, history: History, replay: Replay, report: Report) -> None:
        self._history = history
        self._replay = replay
        self._report = report
        self._ran: dict[str, _Ran] = {}

    def judge(self) -> None:
        """Find every violation that the journal shows."""
        self._read()
        for attempt_id, ran in self._ran.items():
            attempt = self._replay.attempts.get(attempt_id)
            if attempt is not None and attempt.started is not None and not self._doubted(ran.start):
                self._end(attempt, ran)
                self._order(attempt, ran)
        if self._history.setup.journal:
            self._unheard()
        self._overlaps()
        self._after_cancels()

    def _read(self) -> None:
        """Read what was written, line by line.  The events of a DAG that was deleted are gone with it."""
        deleted = self._history.deleted()
        fences: dict[tuple[InstanceKey, int], Line] = {}
        for place, line in enumerate(self._history.journal):
            if line["dag_id"] in deleted and (line["dag_id"], line["run_id"]) not in self._replay.runs:
                continue
            ran = self._ran.get(line["attempt_id"])
            if ran is not None:
                ran.last, ran.last_place = line, place
            if line["what"] == "start":
                self._report.counts["journal starts"] += 1
                self._start(place, line, fences)
            elif line["what"] == "saw":
                self._saw(line)
            elif ran is None:
                self._report.add("I-3", "user code ended that never started", line)
            elif line["what"] in _ENDS and ran.end is None:
                ran.end, ran.end_place = line, place

    def _start(self, place: int, line: Line, fences: dict[tuple[InstanceKey, int], Line]) -> None:
        key = (line["dag_id"], line["run_id"], line["task_id"], line.get("map_index", -1))
        attempt = self._replay.attempts.get(line["attempt_id"])
        before = fences.setdefault((key, line["fence"]), line)
        if before is not line:
            self._report.add("I-3", f"user code started twice under the fence {line['fence']}", before, line)
        elif self._doubted(line):
            pass  # the log says nothing certain about it
        elif attempt is None or attempt.started is None:
            self._report.add("I-3", "user code started without a won start", line, attempt.queued if attempt else None)
        elif (attempt.instance, attempt.fence) != (key, line["fence"]):
            self._report.add("I-3", "user code was told another fence than its attempt has", line, attempt.queued)
        elif "seen" in line and "id" in attempt.started:
            self._report.counts["starts held against the log"] += 1
            if attempt.started["id"] > line["seen"]:
                self._report.add("I-3", "user code started before its start was committed", line, attempt.started)
        self._ran.setdefault(line["attempt_id"], _Ran(line, place, line, place))

    def _doubted(self, line: Line) -> bool:
        run = self._replay.runs.get((line["dag_id"], line["run_id"]))
        return run is not None and run.doubted

    def _end(self, attempt: Attempt, ran: _Ran) -> None:
        if attempt.succeeded and (ran.end is None or ran.end["what"] != "end"):
            self._report.add("I-4", "a success was accepted of user code that did not come to its end",
                             ran.start, ran.end, attempt.ended)  # fmt: skip
        if _failed(attempt) and ran.end is not None and ran.end["what"] == "end":
            self._report.add("I-4", "a failure was accepted of user code that came to its end", ran.end, attempt.ended)

    def _unheard(self) -> None:
        """Where every task keeps a journal, what succeeded without a word in it never ran."""
        for attempt_id, attempt in self._replay.attempts.items():
            doubted = self._replay.runs[attempt.instance[:2]].doubted
            if attempt.succeeded and attempt_id not in self._ran and not doubted:
                self._report.add("I-4", "a success was accepted of user code that never began",
                                 attempt.started, attempt.ended)  # fmt: skip

    def _order(self, attempt: Attempt, ran: _Ran) -> None:
        """What it waited for had ended before it began, on the tasks' own clock."""
        for name, attempt_id in attempt.inputs.items():
            upstream = self._ran.get(attempt_id)
            if upstream is None or upstream.end is None:
                continue  # it keeps no journal; or an accepted success without an end, which is told already
            if _before(ran.start, ran.place, upstream.end, upstream.end_place):
                self._report.add("I-6", f"it began before its upstream {name} had ended", upstream.end, ran.start)

    def _saw(self, line: Line) -> None:
        self._report.counts["outputs seen"] += 1
        attempt = self._replay.attempts.get(line["attempt_id"])
        run = self._replay.runs[line["dag_id"], line["run_id"]]
        if attempt is None or run.document is None:
            return
        if attempt.inputs.get(line["from_task"]) != line["from_attempt"]:
            got = self._replay.attempts.get(line["from_attempt"])
            if got is not None and _came_since(attempt, got, line["from_task"]):
                return
            if line["from_attempt"] is None and _went_since(attempt, run, line["from_task"]):
                return
            what = f"it was given an output of {line['from_task']} that was not accepted for it"
            self._report.add("I-22", what, line, attempt.started, (got.ended or got.queued) if got else None)

    def _overlaps(self) -> None:
        by_instance: dict[InstanceKey, list[tuple[int, _Ran]]] = defaultdict(list)
        for attempt_id, ran in self._ran.items():
            attempt = self._replay.attempts.get(attempt_id)
            if attempt is not None:
                by_instance[attempt.instance].append((attempt.fence, ran))
        for key, those in by_instance.items():
            run = self._replay.runs[key[0], key[1]]
            task = run.task(key[2])
            if task is not None and task.goes_on:
                continue
            those.sort(key=lambda pair: pair[0])
            for (_, earlier), (_, later) in pairwise(those):
                self._overlap(earlier, later)

    def _overlap(self, earlier: _Ran, later: _Ran) -> None:
        end, start = earlier.last, later.start
        if "t" in end and "t" in start:
            beside = end["t"] - start["t"]
        else:
            beside = float(earlier.last_place > later.place)
            beside = beside and self._history.setup.overlap + beside
        if beside <= self._history.setup.overlap:
            return
        if any(_woke_up(pause, earlier, start) for pause in self._history.pauses):
            self._report.counts[WOKEN] += 1
        else:
            self._report.add("I-5", "a superseded attempt went on beside its successor", earlier.start, start, end)

    def _after_cancels(self) -> None:
        """After an answered cancel nothing of the run writes any more, once the grace is over."""
        written: dict[tuple[str, str], list[Line]] = defaultdict(list)
        for line in self._history.journal:
            written[line["dag_id"], line["run_id"]].append(line)
        asked = requests(self._history.calls)
        for request in asked.get("cancel", ()):
            key = (request.dag_id or "", request.run_id or "")
            run = self._replay.runs.get(key)
            if run is None or not run.cancels or self._starts_again(run, request, asked.get("clear", ())):
                continue
            for call in request.told:
                self._after_cancel(call, written[key])

    def _starts_again(self, run: Run, cancel: Request, clears: Iterable[Request]) -> bool:
        """Whether a clear may have opened the run again, by right: one that was not surely over before the cancel."""
        if not self._history.setup.clients and any(state == "queued" for state, _ in run.states[1:]):
            return True
        key = (run.dag_id, run.run_id)
        return any(one.is_possible and (one.dag_id, one.run_id) == key and one.done >= cancel.sent for one in clears)

    def _after_cancel(self, call: Line, written: Iterable[Line]) -> None:
        if call.get("t1") is None:
            return
        limit = call["t1"] + self._history.setup.grace
        for line in written:
            if line.get("t", limit) > limit and not self._replay.goes_on(line["attempt_id"]):
                if any(pause["from"] <= limit and _wakes(pause, line) for pause in self._history.pauses):
                    self._report.counts[WOKEN] += 1
                    continue
                late = line["t"] - call["t1"]
                self._report.add("I-21", f"user code ran on {late:.1f} s after an answered cancel", line, call)
                break


def _failed(attempt: Attempt) -> bool:
    """Whether it was told that its user code failed by itself; what has taken too long may have ended meanwhile."""
    ended = attempt.ended or {}
    return (ended.get("data") or {}).get("attempt") == "fail" and ended.get("reason") != "timed_out"


def _woke_up(pause: Line, earlier: _Ran, start: Line) -> bool:
    """Whether an attempt stood still with all of its host while its successor began, and wrote on at the first moment.

    Nobody can stop a process before it is woken up, and what kills it is woken at the same time.
    """
    end = earlier.last
    if not {"t"} <= earlier.start.keys() & start.keys() & end.keys():
        return False
    stood = earlier.start["t"] <= pause["from"] <= start["t"] <= pause["until"]
    return bool(stood and _wakes(pause, end))


def _wakes(pause: Line, line: Line) -> bool:
    """Whether a line was written in the first moment after a host had stood still."""
    return bool(-_WAKING <= line["t"] - pause["until"] <= _WAKING)


def _before(one: Line, place: int, other: Line, other_place: int) -> bool:
    if "t" in one and "t" in other:
        return bool(one["t"] < other["t"])
    return place < other_place


def _went_since(attempt: Attempt, run: Run, task_id: str) -> bool:
    """Whether the upstream *task_id* was cleared after the start of *attempt*, which may have been asked for again."""
    began = (attempt.started or attempt.queued).get("run_seq") or 0
    return any(line["task_id"] == task_id and (line.get("run_seq") or 0) > began for line in run.clears)


def _came_since(attempt: Attempt, got: Attempt, task_id: str) -> bool:
    """Whether *got* is a success of the upstream *task_id* that was accepted after the start of *attempt*.

    A start that is asked for again is answered with what is there by then: user code has not begun.
    """
    upstream = (*attempt.instance[:2], task_id)
    return got.succeeded and got.instance[:3] == upstream and 0 < attempt.started_at < got.ended_at
