"""Bad histories: each a small mutation of a good one, and the one invariant that it breaks."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.checker import tales
from tests.simulation.checker.tale import AGENT, Tale, numbered

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.checker.tale import Lines

    Change = Callable[[Lines], object]


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


def move(to: Callable[[Lines], int], **match: Any) -> Change:
    def apply(lines: Lines) -> None:
        line = lines.pop(at(lines, **match))
        lines.insert(to(lines), line)

    return apply


def before(**match: Any) -> Callable[[Lines], int]:
    return lambda lines: at(lines, **match)


def after(**match: Any) -> Callable[[Lines], int]:
    return lambda lines: at(lines, **match) + 1


def add(where: Callable[[Lines], int], *new: dict[str, Any]) -> Change:
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
    line = {"type": "event", "kind": f"task.{to}", "dag_id": "d", "run_id": run, "task_id": task, "map_index": -1}
    made = {**line, "from_state": was, "to_state": to, "try_number": fence, "actor": "scheduler", "reason": None}
    return {**made, "at": "2026-01-01T01:00:00Z", **more}


END: Final = {"type": "rest"}
CALL: Final = {"type": "call", "client": "c", "dag_id": "d", "key": None, "body": {}, "t0": 90.0, "t1": 90.1}


def queue_twice() -> Tale:
    """A second attempt while the first one works, from an instance that still looked ready."""
    tale = Tale().dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a").work("r", "a", end=None)
    line = event("r", "a", "queued", "scheduled", 2, attempt_id="r.a.2", data={"slots": AGENT})
    tale.lines.append(line)
    return tale


def second_host() -> Tale:
    """Two attempts of one instance beside each other."""
    return tales.superseded()


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


def cancel_late() -> Tale:
    """A journal that goes on after an answered cancel."""
    tale = Tale(grace=10).dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a").work("r", "a", end=None)
    tale.run("r", "cancelling", actor="key:test", reason="user")
    tale.task("r", "a", "cancelling", reason="user", actor="key:test").call("cancel", "r", 202)
    return tale.wait(5).wrote("r", "a", "end").task("r", "a", "success").run("r", "success").end()


def reread() -> Tale:
    tale = tales.read_back()
    return tale.call("read", "r", answer={"run_id": "r", "state": "success"})


_CLEAR: Final = {"actor": "key:test", "reason": "clear"}
_QUEUED: Final = {"data": {"slots": AGENT}}
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
    ("I-2", "a second attempt beside the first", queue_twice, lambda _: None),
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
    ("I-5", "a superseded attempt goes on for too long", second_host, change({"overlap": 0}, type="setup")),
    ("I-5", "the same, by the order of the journal alone", second_host, lambda lines: [
        lines[0].update(overlap=0), *[line.pop("t", None) for line in lines]]),
    ("I-6", "scheduled before its upstream ended", _S(tales.chain), move(
        before(kind="task.success", task_id="a"), kind="task.scheduled", task_id="b")),
    ("I-6", "scheduled with one of two upstreams open", _S(tales.diamond), move(
        before(kind="task.success", task_id="c"), kind="task.scheduled", task_id="d")),
    ("I-6", "scheduled after a failure of its upstream", _S(tales.exhausted), lambda lines: lines.__setitem__(
        slice(at(lines, kind="task.upstream_failed"), len(lines)),
        [event("r", "b", "scheduled", "pending", 0)])),
    ("I-6", "skipped where the rule says run", _S(tales.chain), lambda lines: lines.__setitem__(
        slice(at(lines, kind="task.scheduled", task_id="b"), len(lines)),
        [event("r", "b", "skipped", "pending", 0, reason="trigger_rule")])),
    ("I-6", "upstream_failed where the rule says skip", tales.skipping, both(
        change({"kind": "task.upstream_failed", "to_state": "upstream_failed"}, task_id="after", type="event"),
        change({"state": "upstream_failed"}, task_id="after", type="instance"),
        change({"kind": "run.failed", "to_state": "failed"}, kind="run.success"),
        change({"state": "failed", "counts": None}, type="run"))),
    ("I-6", "the alarm rings and nothing has failed", _S(tales.skipping), lambda lines: lines.__setitem__(
        slice(at(lines, kind="task.skipped"), len(lines)), [event("r", "alarm", "scheduled", "pending", 0)])),
    ("I-6", "a task with work to do is settled as if it were empty", _S(tales.single), lambda lines: lines.__setitem__(
        slice(at(lines, kind="task.scheduled"), at(lines, kind="run.success")),
        [event("r", "a", "success", "pending", 0)])),
    ("I-6", "a task of another version", two_versions, add(before(kind="run.success"),
        event("r", "b", "scheduled", "pending", 0))),
    ("I-6", "the pinned version changes", _S(two_versions), both(
        add(before(type="rest"), {"type": "run", "dag_id": "d", "run_id": "r", "state": "success", "version": 2}),
        add(before(kind="run.success"), event("r", "b", "scheduled", "pending", 0),
        event("r", "b", "queued", "scheduled", 1, attempt_id="r.b.1"), event("r", "b", "running", "queued", 1,
        attempt_id="r.b.1"), event("r", "b", "success", "running", 1, attempt_id="r.b.1")))),
    ("I-6", "user code begins before its upstream's has ended", tales.chain, change(
        {"t": 0.5}, what="start", task_id="b")),
    ("I-6", "begins too early, by the order of the journal alone", tales.chain, lambda lines: [
        move(before(what="end", task_id="a"), what="start", task_id="b")(lines), *[x.pop("t", 0) for x in lines]]),
    ("I-7", "an ended instance is skipped", _S(tales.chain), add(
        before(kind="run.success"), event("r", "a", "skipped", "success"))),
    ("I-7", "an ended instance is scheduled again by nobody", _S(tales.single), add(
        before(kind="run.success"), event("r", "a", "scheduled", "success"))),
    ("I-7", "the scheduler clears", _S(tales.cleared), both(
        change({"actor": "scheduler"}, kind="task.pending"), change({"clients": False}, type="setup"))),
    ("I-7", "an ended run goes on", _S(tales.single), add(after(kind="run.success"), {
        "type": "event", "kind": "run.failed", "dag_id": "d", "run_id": "r", "from_state": "success",
        "to_state": "failed", "actor": "scheduler"})),
    ("I-7", "an ended run is queued again by nobody with a key", _S(tales.cleared), change(
        {"actor": "scheduler"}, kind="run.queued", nth=1)),
    ("I-7", "a cancelled instance is queued", _S(tales.single), lambda lines: lines.__setitem__(
        slice(at(lines, kind="task.queued"), at(lines, kind="run.success")), [
            event("r", "a", "skipped", "scheduled", 0, reason="trigger_rule"),
            event("r", "a", "queued", "skipped", 1, attempt_id="r.a.1")]) or [
            lines.pop(at(lines, kind="run.success")), lines.pop(at(lines, type="rest"))]),
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
        "type": "event", "kind": "run.healed", "dag_id": "d", "run_id": "r", "actor": "scheduler"})),
    ("I-8", "the counts of a run do not add up", tales.diamond, change({"counts": {"success": 3}}, type="run")),
    ("I-8", "cleared instances in a run that is not queued again", _S(tales.cleared), lambda lines: [
        lines.pop(at(lines, kind="run.queued", nth=1)), lines.pop(at(lines, kind="run.running", nth=1)),
        lines.__delitem__(slice(at(lines, kind="task.scheduled", nth=2) + 1, len(lines)))]),
    ("I-8", "a cancel before the start leaves instances open", _S(tales.cleared_and_cancelled), drop(
        kind="task.cancelled")),
    ("I-8", "something of a waiting run becomes ready", _S(tales.single), lambda lines: [
        lines.pop(at(lines, kind="run.running")),
        lines.__delitem__(slice(at(lines, kind="task.scheduled") + 1, len(lines)))]),
    ("I-9", "an accepted run is not in the log", tales.diamond, lambda lines: lines.__setitem__(
        slice(0, len(lines)), [line for line in lines if line.get("run_id") != "r2"])),
    ("I-9", "an accepted run is gone from the store", tales.diamond, drop(type="run", run_id="r2")),
    ("I-9", "an answered cancel had no effect", tales.single, add(
        after(kind="run.running"), {**CALL, "op": "cancel", "run_id": "r", "status": 202, "answer": {"run_id": "r"}})),
    ("I-9", "an answered clear had no effect", tales.single, add(
        after(kind="run.success"), {**CALL, "op": "clear", "run_id": "r", "status": 200, "answer": {"items": [{}]}})),
    ("I-9", "an accepted run is not found", tales.single, add(
        after(kind="run.success"), {**CALL, "op": "read", "run_id": "r", "status": 404, "answer": None})),
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
    ("I-10", "an instance is cancelled in a run that is not", _S(tales.chain), lambda lines: lines.__setitem__(
        slice(at(lines, kind="task.scheduled", task_id="b"), len(lines)),
        [event("r", "b", "cancelled", "pending", 0, reason="user")])),
    ("I-10", "skipped as if the run had failed fast", _S(tales.single), lambda lines: lines.__setitem__(
        slice(at(lines, kind="task.queued"), at(lines, type="rest")),
        [event("r", "a", "skipped", "scheduled", 0, reason="fail_fast"),
         {"type": "event", "kind": "run.success", "dag_id": "d", "run_id": "r", "from_state": "running",
          "to_state": "success", "actor": "scheduler"}])),
    ("I-11", "a repeated request made two runs", _S(tales.repeated), both(
        add(before(type="rest"), {"type": "event", "kind": "run.queued", "dag_id": "d", "run_id": "twin",
        "to_state": "queued", "actor": "key:test"}), change({"held": ["d/twin"]}, type="rest"))),
    ("I-11", "repeats are answered differently", tales.diamond, change({"key": "k1"}, op="trigger", nth=1)),
    ("I-11", "two requests are answered with one run", tales.repeated, change({"key": "other"}, op="trigger", nth=-1)),
    ("I-12", "one more than max_active_tasks", _S(parallel), move(
        before(kind="task.success", task_id="a"), kind="task.queued", task_id="c")),
    ("I-12", "one more than the slots of the agent", _S(parallel), both(
        lambda lines: lines[1]["document"].pop("max_active_tasks"),
        move(before(kind="task.success", task_id="a"), kind="task.queued", task_id="c"))),
    ("I-12", "one more than max_active_runs", many_runs, move(
        before(kind="run.success", run_id="r1"), kind="run.running", run_id="r3")),
    ("I-12", "admitted while a lowered limit has not drained", _S(tales.lowered), move(
        before(kind="task.success", task_id="b"), kind="task.queued", task_id="c")),
    ("I-12", "admitted while an agent has fewer slots", _S(tales.lowered_slots), move(
        before(kind="task.success", task_id="b"), kind="task.queued", task_id="c")),
    ("I-13", "a limit had to be healed", tales.single, add(before(kind="run.success"), {
        "type": "event", "kind": "limit.healed", "actor": "scheduler", "data": {"key": AGENT}})),
    ("I-13", "a slot is never given back", tales.diamond, change({"used": 1}, type="used")),
    ("I-15", "a run starts before its time", tales.delayed, change({"at": "2026-01-01T00:00:59Z"}, kind="run.running")),
    ("I-15", "a retry comes too early", tales.retried, lambda lines: lines[
        at(lines, kind="task.scheduled", nth=2)].update(at=lines[at(lines, kind="task.up_for_retry", nth=1)]["at"])),
    ("I-16", "two runs with one name", _S(tales.single), both(
        add(before(type="rest"), {"type": "event", "kind": "run.queued", "dag_id": "d", "run_id": "r", "run_seq": 1,
        "to_state": "queued", "actor": "key:test"}), change({"held": ["d/r"]}, type="rest"))),
    ("I-18", "an event is missing", tales.diamond, lambda lines: lines.__setitem__(
        slice(0, len(lines)), [x for x in numbered(lines) if (x.get("kind"), x.get("run_id")) != ("task.running", "r1")
        or x["task_id"] != "d"])),
    ("I-18", "a log begins in the middle", tales.single, drop(kind="run.queued")),
    ("I-18", "a number is given twice", tales.single, lambda lines: lines.__setitem__(slice(0, len(lines)), [
        {**line, "run_seq": 4} if line.get("kind") == "task.running" else line for line in numbered(lines)])),
    ("I-18", "a step without an event", tales.unfinished, both(
        drop(kind="task.running", task_id="b"), drop(what="start", task_id="b"), change({"counts": None}, type="run"))),
    ("I-18", "an event and no step: the store says otherwise", tales.unfinished, both(
        change({"state": "scheduled", "try_number": 0}, type="instance", task_id="c"),
        change({"counts": None}, type="run"))),
    ("I-18", "the run is stored in another state", tales.unfinished, change({"state": "queued"}, type="run")),
    ("I-18", "an instance has vanished from the store", tales.chain, drop(type="instance")),
    ("I-18", "a run is stored that has no events", tales.single, add(
        before(type="rest"), {"type": "run", "dag_id": "d", "run_id": "ghost", "state": "success"})),
    ("I-20", "tried again beyond the budget", _S(tales.retried), lambda lines: lines[1][
        "document"]["tasks"]["a"].update(retries=1)),
    ("I-20", "given up with budget left", _S(tales.exhausted), lambda lines: lines[1][
        "document"]["tasks"]["a"].update(retries=2)),
    ("I-20", "more losses than an instance survives", tales.lost, change({"max_losses": 2}, type="setup")),
    ("I-20", "given up after a loss that it survives", tales.given_up, change({"max_losses": 3}, type="setup")),
    ("I-20", "a failure is charged to the losses", tales.retried, change(
        {"failures": 1, "losses": 1}, type="instance")),
    ("I-21", "queued after a cancel", _S(tales.cancelled), both(
        lambda lines: lines.__delitem__(slice(at(lines, kind="run.cancelling") + 1, len(lines))),
        add(after(kind="run.cancelling"), event("r", "c", "queued", "scheduled", attempt_id="r.c.1", data={})),
        change({"clients": False}, type="setup"))),
    ("I-21", "started after a cancel", _S(tales.cancelled), both(
        lambda lines: lines.__delitem__(slice(at(lines, kind="run.cancelling") + 1, len(lines))),
        add(after(kind="run.cancelling"), event("r", "b", "running", "queued", attempt_id="r.b.1")),
        change({"clients": False}, type="setup"))),
    ("I-21", "ready after a cancel", _S(tales.cancelled), both(
        lambda lines: lines.__delitem__(slice(at(lines, kind="run.cancelling") + 1, len(lines))),
        add(after(kind="run.cancelling"), event("r", "e", "scheduled", "pending", 0)),
        change({"clients": False}, type="setup"))),
    ("I-21", "cleared while it is being cancelled", _S(tales.cancelled), lambda lines: [
        lines.__delitem__(slice(at(lines, kind="task.cancelled", nth=-1), len(lines))),
        lines.append(event("r", "c", "pending", "cancelled", 0, **_CLEAR)),
        lines.append({**CALL, "op": "clear", "run_id": "r", "status": 200, "answer": {"items": [{}]}})]),
    ("I-21", "user code goes on after the grace", cancel_late, change({"grace": 1}, type="setup")),
    ("I-22", "the output of an attempt that was lost", tales.chain, change({"from_attempt": "r.a.0"}, what="saw")),
    ("I-22", "the output of another run", tales.chain, change({"from_attempt": "q.a.1"}, what="saw")),
    ("STEP", "a success without a start", tales.single, both(
        drop(kind="task.running"), drop(what="start"), drop(what="end"),
        change({"from_state": "queued"}, kind="task.success"))),
    ("STEP", "queued without being ready", tales.single, both(
        drop(kind="task.scheduled"), change({"from_state": "pending"}, kind="task.queued"))),
    ("STEP", "a waiting run succeeds", tales.single, lambda lines: lines.__setitem__(
        slice(at(lines, kind="run.running"), len(lines)), [{"type": "event", "kind": "run.success", "dag_id": "d",
        "run_id": "r", "from_state": "queued", "to_state": "success", "actor": "scheduler"}])),
    ("STEP", "an attempt is lost that never started", tales.never_started, change(
        {"data": {"attempt": "lose"}}, kind="task.scheduled", nth=1)),
    ("STEP", "an attempt never starts that has", tales.drained, change(
        {"data": {"attempt": "never_start"}}, kind="task.scheduled", nth=1)),
    ("STEP", "an instance that waits is cleared", _S(tales.unfinished), both(
        lambda lines: lines.append(event("r", "d", "pending", "pending", 0, **_CLEAR)),
        lambda lines: lines.append({**CALL, "op": "clear", "run_id": "r", "status": 200, "answer": {"items": [{}]}}))),
    ("L-1", "an accepted run waits for ever", tales.held, change({"held": []}, type="rest")),
    ("L-1", "a retry is never scheduled", _S(tales.retried), lambda lines: lines.__delitem__(
        slice(at(lines, kind="task.scheduled", nth=2), at(lines, type="rest")))),
    ("L-2", "an orphan is never rescued", tales.unfinished, lambda lines: lines.append(dict(END))),
    ("L-2", "a cancelled task never ends", _S(tales.cancelled), lambda lines: lines.__delitem__(
        slice(at(lines, kind="task.cancelled", task_id="a"), at(lines, type="rest")))),
    ("L-6", "a process is left behind", tales.single, add(
        before(type="rest"), {"type": "left", "what": "process 4711"})),
)  # fmt: skip
