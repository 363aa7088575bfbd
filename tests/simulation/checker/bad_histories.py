"""Bad histories: each a small mutation of a good one, and the one invariant that it breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.simulation.checker import tales
from tests.simulation.checker.bad_answers import ANSWERS
from tests.simulation.checker.mutations import (
    add,
    after,
    again,
    at,
    before,
    both,
    change,
    client,
    cut,
    drop,
    end,
    event,
    every,
    move,
    of_run,
    put,
    stripped,
)  # fmt: skip
from tests.simulation.checker.tale import AGENT, Tale, numbered

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.checker.mutations import Change
    from tests.simulation.checker.tale import Lines
    from tests.simulation.checker.violations import Line


def two_versions() -> Tale:
    tale = Tale().dag({"a": {}}).dag({"a": {}, "b": {"depends_on": ["a"]}}, version=2)
    return tale.trigger("r").run("r", "running").good("r", "a").run("r", "success").end()


def parallel() -> Tale:
    """Four tasks that are ready, with room for two."""
    tale = Tale().dag({name: {} for name in "abcd"}, max_active_tasks=2).trigger("r").run("r", "running")
    tale.ready("r", *"abcd")
    return tale.work("r", "a", "b").task("r", "a", "success").task("r", "b", "success").good("r", "c", "d")


def many_runs() -> Tale:
    tale = Tale().dag({"a": {}}, max_active_runs=2)
    for run in ("r1", "r2", "r3"):
        tale.trigger(run)
    return tale.run("r1", "running").run("r2", "running").good("r1", "a").run("r1", "success").run("r3", "running")


def cancel_late(**task: str) -> Tale:
    """A journal that goes on after an answered cancel."""
    tale = Tale(grace=10).dag({"a": task}).trigger("r").run("r", "running").ready("r", "a").work("r", "a", end=None)
    tale.run("r", "cancelling", actor="key:test", reason="user")
    tale.task("r", "a", "cancelling", reason="user", actor="key:test").call("cancel", "r", 202)
    return tale.wait(5).wrote("r", "a", "end").task("r", "a", "success").run("r", "success").end()


def cancel_late_after_a_clear() -> Tale:
    """The same in a run that was cleared long before."""
    tale = Tale(grace=10).dag({"a": {}}).trigger("r").run("r", "running").good("r", "a").run("r", "success")
    tale.task("r", "a", "pending", **_CLEAR).run("r", "queued", actor="key:test")
    tale.call("clear", "r", 200, answer={"items": ["a"]}).run("r", "running").ready("r", "a").work("r", "a", end=None)
    tale.run("r", "cancelling", actor="key:test", reason="user")
    tale.task("r", "a", "cancelling", reason="user", actor="key:test").call("cancel", "r", 202)
    return tale.wait(5).wrote("r", "a", "end").task("r", "a", "success").run("r", "success").end()


def begun_late() -> Tale:
    """A worker was cut off before it forked: its attempt begins beside the next one, and is killed before it ends."""
    tale = Tale(overlap=60).dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a")
    tale.task("r", "a", "queued", "running").task("r", "a", "scheduled", reason="lost", data={"attempt": "lose"})
    tale.work("r", "a").task("r", "a", "success").run("r", "success").end().wait(50)
    return tale.wrote("r", "a", "start", attempt_id="r.a.1", fence=1)


def reread() -> Tale:
    tale = tales.read_back()
    return tale.call("read", "r", answer={"run_id": "r", "state": "success"})


def timeless(line: Line) -> Line:
    """Tell it where hosts have no common clock."""
    return {name: value for name, value in line.items() if name != "t"}


def numbers(lines: Lines) -> None:
    """Number the events before something is done to them."""
    lines[:] = numbered(lines)


def says(**settings: Any) -> Change:
    """Let the document say something else of its task."""
    return lambda lines: lines[at(lines, type="dag")]["document"]["tasks"]["a"].update(settings)


_CLEAR: Final[Line] = {"actor": "key:test", "reason": "clear"}
_S = stripped

#: Invariant, what is wrong, the good history, what is done to it.
BAD: Final[tuple[tuple[str, str, Callable[[], Tale], Change], ...]] = (
    ("I-1", "a fence is left out", tales.single, both(
        change({"try_number": 2}, kind="task.queued"), change({"try_number": 2}, kind="task.running"),
        change({"try_number": 2}, kind="task.success"), change({"fence": 2}, what="start"),
        change({"fence": 2}, what="end"), change({"try_number": 2}, type="instance"))),
    ("I-1", "a fence is used again", _S(tales.drained), both(
        change({"try_number": 1}, kind="task.queued", nth=1), change({"try_number": 1}, kind="task.running", nth=1),
        change({"try_number": 1}, kind="task.success"), drop(what="start", nth=1), drop(what="end"))),
    ("I-1", "an attempt id is used again", _S(tales.drained), both(
        change({"attempt_id": "r.a.1"}, kind="task.queued", nth=1),
        change({"attempt_id": "r.a.1"}, kind="task.running", nth=1),
        change({"attempt_id": "r.a.1"}, kind="task.success"), drop(what="start", nth=1), drop(what="end"))),
    ("I-1", "a clear begins the fences anew", _S(tales.cleared), both(
        change({"try_number": 1}, kind="task.queued", task_id="b", nth=1),
        change({"try_number": 1}, kind="task.running", task_id="b", nth=1),
        change({"try_number": 1}, kind="task.success", task_id="b"),
        drop(what="start", task_id="b", nth=1), drop(what="end", task_id="b"))),
    ("I-1", "a start carries another fence", tales.chain, change({"try_number": 7}, kind="task.running")),
    ("I-2", "a second attempt beside the first", tales.unfinished, both(
        put(event("r", "b", "queued", "scheduled", 2, attempt_id="r.b.2")),
        every(lambda line: None if line["type"] in ("run", "instance", "used") else line))),
    ("I-2", "an attempt is queued twice under two ids", _S(tales.single), both(
        again({"attempt_id": "r.a.2", "try_number": 2}, kind="task.queued"),
        *[change({"attempt_id": "r.a.2", "try_number": 2}, kind=kind) for kind in ("task.running", "task.success")],
        *[change({"attempt_id": "r.a.2", "fence": 2}, what=what) for what in ("start", "end")])),
    ("I-3", "user code starts twice in one attempt", tales.chain, again(what="start")),
    ("I-3", "user code starts under one fence on two hosts", tales.chain, again({"attempt_id": "other"}, what="start")),
    ("I-3", "user code of a queued attempt starts without a won start", tales.unfinished, add(
        after(kind="task.queued", task_id="c"), {"type": "task", "what": "start", "attempt_id": "r.c.1",
        "dag_id": "d", "run_id": "r", "task_id": "c", "fence": 1})),
    ("I-3", "user code of an attempt that nobody knows", tales.single, add(
        after(what="end"), {"type": "task", "what": "start", "attempt_id": "ghost", "dag_id": "d", "run_id": "r",
        "task_id": "a", "fence": 2})),
    ("I-3", "user code starts before its start is committed", tales.single, both(
        change({"id": 7}, kind="task.running"), change({"seen": 6}, what="start"))),
    ("I-3", "user code is told another fence", tales.single, both(
        change({"fence": 3}, what="start"), change({"fence": 3}, what="end"))),
    ("I-3", "a start is won twice", _S(tales.single), again(kind="task.running")),
    ("I-3", "a superseded attempt wins its start", _S(tales.drained), add(
        after(kind="task.queued", nth=1), event("r", "a", "running", "queued", 1, attempt_id="r.a.1"))),
    ("I-3", "user code ends that never started", tales.single, drop(what="start")),
    ("I-4", "an end is accepted twice", _S(tales.chain), again(kind="task.success", task_id="a")),
    ("I-4", "a late failure overwrites a success", _S(tales.single), again(
        {"kind": "task.failed", "to_state": "failed"}, kind="task.success")),
    ("I-4", "a stale attempt ends the current one", tales.drained, change(
        {"attempt_id": "r.a.1"}, kind="task.success")),
    ("I-4", "an end of nobody's", tales.single, change({"attempt_id": None}, kind="task.success")),
    ("I-4", "a success of code that did not come to its end", tales.single, drop(what="end")),
    ("I-4", "a success of code that failed", tales.single, change({"what": "fail"}, what="end")),
    ("I-4", "a success of code that never began, where all tasks keep a journal", tales.single, both(
        change({"journal": True}, type="setup"), drop(what="start"), drop(what="end"))),
    ("I-4", "a failure of code that came to its end", tales.retried, change({"what": "end"}, what="fail")),
    ("I-5", "a superseded attempt goes on for too long", tales.superseded, change({"overlap": 0}, type="setup")),
    ("I-5", "the same, by the order of the journal alone", tales.superseded, both(
        change({"overlap": 0}, type="setup"), every(timeless))),
    ("I-5", "a superseded attempt begins late, and never ends", begun_late, change({"overlap": 0}, type="setup")),
    ("I-5", "it begins late, by the order of the journal alone", begun_late, both(
        change({"overlap": 0}, type="setup"), every(timeless))),
    ("I-5", "an attempt goes on long after its host has woken up", tales.woken, change({"until": 5.0}, type="pause")),
    ("I-5", "an attempt goes on whose host did not stand still", tales.woken, drop(type="pause")),
    ("I-6", "scheduled before its upstream ended", _S(tales.chain), move(
        before(kind="task.success", task_id="a"), kind="task.scheduled", task_id="b")),
    ("I-6", "scheduled with one of two upstreams open", _S(tales.diamond), move(
        before(kind="task.success", task_id="c"), kind="task.scheduled", task_id="d")),
    ("I-6", "scheduled after a failure of its upstream", _S(tales.exhausted), cut(
        before(kind="task.upstream_failed"), end, event("r", "b", "scheduled", "pending", 0))),
    ("I-6", "skipped where the rule says run", _S(tales.chain), cut(
        before(kind="task.scheduled", task_id="b"), end,
        event("r", "b", "skipped", "pending", 0, reason="trigger_rule"))),
    ("I-6", "upstream_failed where the rule says skip", tales.skipping, both(
        change({"kind": "task.upstream_failed", "to_state": "upstream_failed"}, task_id="after", type="event"),
        change({"state": "upstream_failed"}, task_id="after", type="instance"),
        change({"kind": "run.failed", "to_state": "failed"}, kind="run.success"),
        change({"state": "failed", "counts": None}, type="run"))),
    ("I-6", "the alarm rings and nothing has failed", _S(tales.skipping), cut(
        before(kind="task.skipped"), end, event("r", "alarm", "scheduled", "pending", 0))),
    ("I-6", "a task with work to do is settled as if it were empty", _S(tales.single), cut(
        before(kind="task.scheduled"), before(kind="run.success"), event("r", "a", "success", "pending", 0))),
    ("I-6", "a task of another version", two_versions, add(before(kind="run.success"),
        event("r", "b", "scheduled", "pending", 0))),
    ("I-6", "the pinned version changes", _S(two_versions), both(
        add(before(type="rest"), {"type": "run", "dag_id": "d", "run_id": "r", "state": "success", "version": 2}),
        add(before(kind="run.success"), event("r", "b", "scheduled", "pending", 0),
        event("r", "b", "queued", "scheduled", 1, attempt_id="r.b.1"), event("r", "b", "running", "queued", 1,
        attempt_id="r.b.1"), event("r", "b", "success", "running", 1, attempt_id="r.b.1")))),
    ("I-6", "user code begins before its upstream's has ended", tales.chain, change(
        {"t": 0.5}, what="start", task_id="b")),
    ("I-6", "begins too early, by the order of the journal alone", tales.chain, both(
        move(before(what="end", task_id="a"), what="start", task_id="b"), every(timeless))),
    ("I-7", "an ended instance is skipped", _S(tales.chain), add(
        before(kind="run.success"), event("r", "a", "skipped", "success"))),
    ("I-7", "an ended instance is scheduled again by nobody", _S(tales.single), add(
        before(kind="run.success"), event("r", "a", "scheduled", "success"))),
    ("I-7", "the scheduler clears", _S(tales.cleared), both(
        change({"actor": "scheduler"}, kind="task.pending"), change({"clients": False}, type="setup"))),
    ("I-7", "an ended run goes on", _S(tales.single), add(
        after(kind="run.success"), of_run("r", "failed", "success"))),
    ("I-7", "an ended run is queued again by nobody with a key", _S(tales.cleared), change(
        {"actor": "scheduler"}, kind="run.queued", nth=1)),
    ("I-7", "a skipped instance is queued", _S(tales.skipping), cut(
        before(kind="task.skipped", task_id="after"), end,
        event("r", "alarm", "queued", "skipped", 1, attempt_id="r.alarm.1"))),
    ("I-8", "a run ends with work open", _S(tales.diamond), move(
        before(kind="task.success", task_id="d", run_id="r1"), kind="run.success", run_id="r1")),
    ("I-8", "a run succeeds that failed", tales.exhausted, both(
        change({"kind": "run.success", "to_state": "success"}, kind="run.failed"),
        change({"state": "success"}, type="run"))),
    ("I-8", "a run fails that succeeded", tales.diamond, both(
        change({"kind": "run.failed", "to_state": "failed"}, kind="run.success"),
        change({"state": "failed"}, type="run"))),
    ("I-8", "an allowed failure fails the run", tales.allowed_to_fail, both(
        change({"kind": "run.failed", "to_state": "failed"}, kind="run.success"),
        change({"state": "failed"}, type="run"))),
    ("I-8", "cancelled, and nothing of it was", tales.cancelled_too_late, both(
        change({"kind": "run.cancelled", "to_state": "cancelled"}, kind="run.success"),
        change({"state": "cancelled"}, type="run"))),
    ("I-8", "a run ends before a task was ever looked at", tales.skipping, both(
        drop(kind="task.skipped", task_id="after"), drop(type="instance", task_id="after"),
        change({"counts": None}, type="run"))),
    ("I-8", "counters had to be healed", tales.single, add(before(kind="run.success"), {
        **of_run("r", "healed", None), "to_state": None})),
    ("I-8", "the counts of a run do not add up", tales.diamond, change({"counts": {"success": 3}}, type="run")),
    ("I-8", "cleared instances in a run that is not queued again", _S(tales.cleared), both(
        drop(kind="run.queued", nth=1), drop(kind="run.running", nth=1),
        cut(after(kind="task.scheduled", nth=2)))),
    ("I-8", "a cancel before the start leaves instances open", _S(tales.cleared_and_cancelled), drop(
        kind="task.cancelled")),
    ("I-8", "something of a waiting run becomes ready", _S(tales.single), both(
        drop(kind="run.running"), cut(after(kind="task.scheduled")))),
    ("I-9", "an accepted run is not in the log", tales.diamond, every(
        lambda line: None if line.get("run_id") == "r2" else line)),
    ("I-9", "the same beside a delete that was not answered and has not happened", tales.diamond, both(
        every(lambda line: None if line.get("run_id") == "r2" else line),
        put({**client("delete", 0, None), "run_id": None, "status": None}))),
    ("I-9", "an accepted run is gone from the store", tales.diamond, drop(type="run", run_id="r2")),
    ("I-9", "an answered cancel had no effect", tales.single, put(client("cancel", 202, {"run_id": "r"}))),
    ("I-9", "an answered clear had no effect", tales.single, put(client("clear", 200, {"items": [{"task_id": "a"}]}))),
    ("I-9", "an accepted run is not found", tales.single, put(client("read", 404, None))),
    ("I-9", "an ended run is read as running again", reread, change(
        {"answer": {"run_id": "r", "state": "running"}}, op="read", nth=-1)),
    ("I-9", "a run is read in a state that it never had", reread, change(
        {"answer": {"run_id": "r", "state": "failed"}}, op="read", nth=0)),
    ("I-10", "a run that nobody asked for", tales.diamond, drop(op="trigger")),
    ("I-10", "a refused trigger made a run", tales.single, change({"status": 422, "answer": None}, op="trigger")),
    ("I-10", "a cancel that nobody asked for", tales.cancelled, drop(op="cancel")),
    ("I-10", "a refused cancel had an effect", tales.cancelled, change({"status": 403}, op="cancel")),
    ("I-10", "a clear that nobody asked for", tales.cleared, drop(op="clear")),
    ("I-10", "a dry run cleared", tales.cleared, change({"body": {"dry_run": True}}, op="clear")),
    ("I-10", "an instance is cancelled in a run that is not", _S(tales.chain), cut(
        before(kind="task.scheduled", task_id="b"), end, event("r", "b", "cancelled", "pending", 0, reason="user"))),
    ("I-10", "skipped as if the run had failed fast", _S(tales.single), cut(
        before(kind="task.queued"), before(type="rest"),
        event("r", "a", "skipped", "scheduled", 0, reason="fail_fast"), of_run("r", "success", "running"))),
    ("I-11", "a repeated request made two runs", _S(tales.repeated), both(
        add(before(type="rest"), of_run("twin", "queued", None, actor="key:test")),
        change({"held": ["d/twin"]}, type="rest"))),
    ("I-11", "repeats are answered differently", tales.diamond, change({"key": "k1"}, op="trigger", nth=1)),
    ("I-11", "two requests are answered with one run", tales.repeated, change({"key": "other"}, op="trigger", nth=-1)),
    ("I-12", "one more than max_active_tasks", _S(parallel), move(
        before(kind="task.success", task_id="a"), kind="task.queued", task_id="c")),
    ("I-12", "one more than the slots of the agent", _S(parallel), both(
        change({"document": {"tasks": {name: {} for name in "abcd"}}}, type="dag"),
        move(before(kind="task.success", task_id="a"), kind="task.queued", task_id="c"))),
    ("I-12", "one more than max_active_runs", many_runs, move(
        before(kind="run.success", run_id="r1"), kind="run.running", run_id="r3")),
    ("I-12", "admitted while a lowered limit has not drained", _S(tales.lowered), move(
        before(kind="task.success", task_id="b"), kind="task.queued", task_id="c")),
    ("I-12", "admitted while an agent has fewer slots", _S(tales.lowered_slots), move(
        before(kind="task.success", task_id="b"), kind="task.queued", task_id="c")),
    ("I-13", "a limit had to be healed", tales.single, add(before(kind="run.success"), {
        "type": "event", "kind": "limit.healed", "actor": "scheduler", "data": {"key": AGENT}})),
    ("I-12", "an attempt takes no slot", _S(tales.single), change({"data": {}}, kind="task.queued")),
    ("I-13", "a limit that is held is not counted", tales.unfinished, drop(type="used", key=AGENT)),
    ("I-13", "a slot is never given back", tales.diamond, change({"used": 1}, type="used")),
    ("I-15", "a run starts before its time", tales.delayed, change({"at": "2026-01-01T00:00:59Z"}, kind="run.running")),
    ("I-15", "a retry comes too early", tales.retried, change(
        {"at": "2026-01-01T00:00:10Z"}, kind="task.scheduled", nth=1)),
    ("I-16", "two runs with one name", _S(tales.single), both(
        add(before(type="rest"), of_run("r", "queued", None, actor="key:test", run_seq=1)),
        change({"held": ["d/r"]}, type="rest"))),
    ("I-18", "an event is missing", tales.diamond, both(numbers, drop(kind="task.running", run_id="r1", task_id="d"))),
    ("I-18", "a log begins in the middle", tales.single, drop(kind="run.queued")),
    ("I-18", "a number is given twice", tales.single, both(numbers, change({"run_seq": 4}, kind="task.running"))),
    ("I-18", "a step without an event", tales.unfinished, both(
        drop(kind="task.running", task_id="b"), drop(what="start", task_id="b"), change({"counts": None}, type="run"))),
    ("I-18", "an event and no step: the store says otherwise", tales.unfinished, both(
        change({"state": "scheduled", "try_number": 0}, type="instance", task_id="c"),
        change({"counts": None}, type="run"))),
    ("I-18", "the run is stored in another state", tales.unfinished, change({"state": "queued"}, type="run")),
    ("I-18", "an instance has vanished from the store", tales.chain, drop(type="instance")),
    ("I-18", "all instances of a run have vanished from the store", tales.diamond, every(
        lambda line: None if line["type"] == "instance" and line["run_id"] == "r1" else line)),
    ("I-18", "a run has vanished from the store that nobody was answered", tales.diamond, both(
        change({"status": None, "answer": None, "t1": None}, op="trigger", nth=1),
        every(lambda line: None if line["type"] in ("run", "instance") and line["run_id"] == "r2" else line))),
    ("I-18", "a run is stored that has no events", tales.single, add(
        before(type="rest"), {"type": "run", "dag_id": "d", "run_id": "ghost", "state": "success"})),
    ("I-20", "tried again beyond the budget", _S(tales.retried), says(retries=1)),
    ("I-20", "given up with budget left", _S(tales.exhausted), says(retries=2)),
    ("I-20", "more losses than an instance survives", tales.drained_often, every(
        lambda line: line | {"reason": "lost"} if line.get("reason") == "drained" else line)),
    ("I-20", "given up after a loss that it survives", tales.given_up, change(
        {"reason": "drained"}, kind="task.scheduled", nth=1)),
    ("I-20", "a failure is charged to the losses", tales.retried, change(
        {"failures": 1, "losses": 1}, type="instance")),
    ("I-21", "queued after a cancel", _S(tales.cancelled), both(cut(after(kind="run.cancelling"), end,
        event("r", "c", "queued", "scheduled", attempt_id="r.c.1", data={"slots": "slots:local@y"})),
        put(client("cancel", 202, {"run_id": "r"})))),
    ("I-21", "started after a cancel", _S(tales.cancelled), both(cut(after(kind="run.cancelling"), end,
        event("r", "b", "running", "queued", attempt_id="r.b.1")), put(client("cancel", 202, {"run_id": "r"})))),
    ("I-21", "ready after a cancel", _S(tales.cancelled), both(cut(after(kind="run.cancelling"), end,
        event("r", "e", "scheduled", "pending", 0)), put(client("cancel", 202, {"run_id": "r"})))),
    ("I-21", "cleared while it is being cancelled", _S(tales.cancelled), both(
        cut(before(kind="task.cancelled", nth=-1)),
        put(event("r", "c", "pending", "cancelled", 0, **_CLEAR), client("clear", 200, {"items": ["c"]})))),
    ("I-21", "user code goes on after the grace", cancel_late, change({"grace": 1}, type="setup")),
    ("I-21", "the same, where it might only without contact", lambda: cancel_late(on_lost_contact="continue"),
        change({"grace": 1}, type="setup")),
    ("I-21", "user code goes on after the grace in a run that was cleared before", cancel_late_after_a_clear,
        change({"grace": 1}, type="setup")),
    ("I-21", "user code goes on long after its host has woken up", tales.woken_after_a_cancel, change(
        {"until": 20.0}, type="pause")),
    ("I-21", "user code goes on after the grace, and its host stood still later", tales.woken_after_a_cancel, change(
        {"from": 20.0}, type="pause")),
    ("I-21", "user code goes on after the grace, and its host did not stand still", tales.woken_after_a_cancel, drop(
        type="pause")),
    ("I-22", "no output where there was one", tales.chain, change({"from_attempt": None}, what="saw")),
    ("I-22", "the output of an attempt that was lost", tales.chain, change({"from_attempt": "r.a.0"}, what="saw")),
    ("I-22", "the output of another run", tales.chain, change({"from_attempt": "q.a.1"}, what="saw")),
    ("STEP", "a success without a start", tales.single, both(
        drop(kind="task.running"), drop(what="start"), drop(what="end"),
        change({"from_state": "queued"}, kind="task.success"))),
    ("STEP", "queued without being ready", tales.single, both(
        drop(kind="task.scheduled"), change({"from_state": "pending"}, kind="task.queued"))),
    ("STEP", "a waiting run succeeds", tales.single, cut(
        before(kind="run.running"), end, of_run("r", "success", "queued"))),
    ("STEP", "an attempt is lost that never started", tales.never_started, change(
        {"data": {"attempt": "lose"}}, kind="task.scheduled", nth=1)),
    ("STEP", "an attempt never starts that has", tales.drained, change(
        {"data": {"attempt": "never_start"}}, kind="task.scheduled", nth=1)),
    ("STEP", "an instance that waits is cleared", _S(tales.unfinished), put(
        event("r", "d", "pending", "pending", 0, **_CLEAR), client("clear", 200, {"items": ["d"]}))),
    ("L-1", "an accepted run waits for ever", tales.held, change({"held": []}, type="rest")),
    ("L-1", "a retry is never scheduled", _S(tales.retried), cut(
        before(kind="task.scheduled", nth=2), before(type="rest"))),
    ("L-2", "an orphan is never rescued", tales.unfinished, put({"type": "rest"})),
    ("L-2", "a cancelled task never ends", _S(tales.cancelled), cut(
        before(kind="task.cancelled", task_id="a"), before(type="rest"))),
    ("L-6", "a process is left behind", tales.single, add(
        before(type="rest"), {"type": "left", "what": "process 4711"})),
    ("L-6", "user code of an attempt that has ended is left behind", tales.single, put(
        {"type": "left", "what": "process 4711", "attempt_id": "r.a.1"})),
    ("L-6", "user code is left behind that should be dead without contact", tales.gone_on_for_good, both(
        change({"document": {"tasks": {"a": {}}}}, type="dag"), drop(what="end"))),
    ("L-6", "user code is left behind whose worker's new process has called it dead", tales.gone_on_for_good,
        change({"actor": "key:worker"}, reason="lost")),
    ("L-6", "user code is left behind of nobody knows what", tales.gone_on_for_good,
        change({"attempt_id": "r.a.9"}, type="left")),
    ("L-6", "a folder is left behind, told after the rest", tales.single, put(
        {"type": "left", "what": "folder /run/x/attempts/r.a.1"})),
    *ANSWERS,
)  # fmt: skip
