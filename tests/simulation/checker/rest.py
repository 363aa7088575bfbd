"""What must be true at the end: what is stored is what the log says; once there was rest, nothing is left to do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.simulation.checker.asked import OK

if TYPE_CHECKING:
    from tests.simulation.checker.history import History
    from tests.simulation.checker.replay import Replay
    from tests.simulation.checker.story import Run
    from tests.simulation.checker.violations import Line, Report


def judge_end(history: History, replay: Replay, report: Report) -> None:
    """Find every violation that the last reads show."""
    _missing(history, replay, report)
    _runs(history, replay, report)
    for line in history.instances:
        run = replay.runs.get((line["dag_id"], line["run_id"]))
        if run is not None and not run.doubted:
            _instance(run, line, report)
    _vanished(history, replay, report)
    doubted = any(run.doubted for run in replay.runs.values())
    if not doubted:
        _used(history, replay, report)
    if history.rest is not None:
        _at_rest(history, replay, report)


def _used(history: History, replay: Replay, report: Report) -> None:
    for line in history.used:
        held = replay.capacity.used(line["key"])
        if held != line["used"]:
            report.add("I-13", f"{line['used']} of the limit {line['key']} are counted, the log says {held}", line)
    counted = {line["key"] for line in history.used}
    for key, row in replay.capacity.taken().items() if counted else ():
        if key not in counted:
            report.add("I-13", f"nothing is counted of the limit {key}, and the log says that it is held", row)


def _missing(history: History, replay: Replay, report: Report) -> None:
    """Find runs that the log has and the store has not.  Those that a client was answered are I-9."""
    stored = {(line["dag_id"], line["run_id"]) for line in history.runs}
    triggers = [call for call in history.calls if call["op"] == "trigger" and call["status"] in OK]
    answered = {(call["dag_id"], call["answer"]["run_id"]) for call in triggers}
    deleted = history.deleted()
    for key, run in replay.runs.items() if stored else ():
        if key not in stored and key not in answered and key[0] not in deleted:
            report.add("I-18", "the log has this run, and the store has not", run.row)


def _runs(history: History, replay: Replay, report: Report) -> None:
    for line in history.runs:
        run = replay.runs.get((line["dag_id"], line["run_id"]))
        if run is None:
            report.add("I-18", "a run is stored that the log does not know", line)
            continue
        if line["state"] != run.state:
            report.add("I-18", f"the run is stored as {line['state']}, the log says {run.state}", line, run.row)
        counts = line.get("counts")
        if counts is None or run.doubted:
            continue
        states = Counter(one.state for one in run.instances.values())
        told = {state: number for state, number in counts.items() if number and state != "pending"}
        logged = {state: number for state, number in states.items() if state != "pending"}
        if told != logged:
            report.add("I-8", f"the run counts {told}, its instances are {logged}", line, run.row)


def _instance(run: Run, line: Line, report: Report) -> None:
    found = run.instances.get((line["task_id"], line.get("map_index", -1)))
    state, fence = ("pending", 0) if found is None else (found.state, found.fence)
    if (line["state"], line["try_number"]) != (state, fence):
        what = f"stored as {line['state']} under the fence {line['try_number']}, the log says {state} under {fence}"
        report.add("I-18", what, line, found.row if found else None)
        return
    for name in ("failures", "losses"):
        told, logged = line.get(name), getattr(found, name, 0)
        if told is not None and told != logged and not (found and _uncharged(found.row)):
            report.add("I-20", f"{told} {name} are counted, the log says {logged}", line, found.row if found else None)


def _vanished(history: History, replay: Replay, report: Report) -> None:
    stored = {
        (line["dag_id"], line["run_id"], line["task_id"], line.get("map_index", -1)) for line in history.instances
    }
    for line in history.runs if history.instances else ():
        run = replay.runs.get((line["dag_id"], line["run_id"]))
        for one in run.instances.values() if run is not None and not run.doubted else ():
            if one.key not in stored:
                report.add("I-18", f"the log has the instance {one.key[2]}, and the store has not", one.row)


def _uncharged(row: Line | None) -> bool:
    """Whether nobody reads any more which budget the last end was charged to."""
    return row is not None and (row.get("from_state") == "cancelling" or row.get("reason") == "rejected")


def _at_rest(history: History, replay: Replay, report: Report) -> None:
    held = set((history.rest or {}).get("held") or ())
    report.counts["at rest"] = 1
    for run in replay.runs.values():
        if run.final or f"{run.dag_id}/{run.run_id}" in held:
            continue
        active = [one for one in run.instances.values() if one.active]
        if active:
            report.add("L-2", f"after all that time {active[0].key[2]} is still {active[0].state}", active[0].row)
        else:
            report.add("L-1", f"after all that time the run is still {run.state}", run.row)
    for line in history.left:
        attempt = replay.attempts.get(line.get("attempt_id", ""))
        # Whom a new process of its own worker has called dead is dead: only who was given up unheard may go on.
        by_scheduler = attempt is not None and attempt.ended is not None and attempt.ended.get("actor") == "scheduler"
        if not (attempt is not None and by_scheduler and replay.goes_on(attempt.attempt_id)):
            report.add("L-6", f"something was left behind: {line['what']}", line)
