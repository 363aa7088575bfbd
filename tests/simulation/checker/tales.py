"""Good histories of all shapes: what the checker must find nothing in, and what the bad ones are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.checker import tales_of_answers
from tests.simulation.checker.tale import Tale
from tests.simulation.checker.tales_of_answers import TOUCHED

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY: Final = "key:test"
_DIAMOND: Final = {
    "a": {},
    "b": {"depends_on": ["a"]},
    "c": {"depends_on": ["a"]},
    "d": {"depends_on": ["b", "c"]},
}


def diamond() -> Tale:
    """Two runs of a diamond, one after the other by max_active_runs."""
    tale = Tale().dag(_DIAMOND, max_active_runs=1, max_active_tasks=2)
    tale.trigger("r1", key="k1").trigger("r2", key="k2")
    for run in ("r1", "r2"):
        tale.run(run, "running").good(run, "a").ready(run, "b", "c")
        tale.task(run, "b", "queued", "running").task(run, "c", "queued", "running")
        for task in ("b", "c"):
            tale.wrote(run, task, "start").wrote(run, task, "end").task(run, task, "success")
        tale.good(run, "d").run(run, "success")
    return tale.end()


def single() -> Tale:
    return Tale().dag({"a": {}}).trigger("r").run("r", "running").good("r", "a").run("r", "success").end()


def committed() -> Tale:
    """A journal that says what it has seen of the log."""
    tale = single()
    for line in tale.lines:
        if line.get("kind") == "task.running":
            line["id"] = 7
        elif line.get("what") == "start":
            line["seen"] = 7
    return tale


def chain() -> Tale:
    tale = Tale().dag({"a": {}, "b": {"depends_on": ["a"]}}).trigger("r").run("r", "running")
    return (
        tale.good("r", "a", "b").wrote("r", "b", "saw", from_task="a", from_attempt="r.a.1").run("r", "success").end()
    )


def retried() -> Tale:
    """Two failures within the budget, each with its pause, the second one twice as long."""
    tale = Tale().dag({"a": {"retries": 2, "retry_delay": "PT10S", "retry_backoff": True}})
    tale.trigger("r").run("r", "running").ready("r", "a")
    for pause in (10, 20):
        tale.bad("r", "a", "up_for_retry").wait(pause).ready("r", "a")
    return tale.good("r", "a").run("r", "success").end()


def exhausted() -> Tale:
    tale = Tale().dag({"a": {"retries": 1, "retry_delay": "PT0S"}, "b": {"depends_on": ["a"]}})
    tale.trigger("r").run("r", "running").ready("r", "a").bad("r", "a", "up_for_retry").ready("r", "a").bad("r", "a")
    return tale.task("r", "b", "upstream_failed", reason="trigger_rule").run("r", "failed").end()


def lost() -> Tale:
    """Three losses, which cost no retry: at once, and then after pauses."""
    tale = Tale().dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a")
    tale.bad("r", "a", "scheduled", "lose", reason="lost")
    for _ in range(2):
        tale.bad("r", "a", "up_for_retry", "lose", reason="lost").ready("r", "a")
    return tale.good("r", "a").run("r", "success").end()


def given_up() -> Tale:
    """The fourth loss is one too many."""
    tale = Tale().dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a")
    tale.bad("r", "a", "scheduled", "lose", reason="lost")
    for _ in range(2):
        tale.bad("r", "a", "up_for_retry", "lose", reason="lost").ready("r", "a")
    return tale.bad("r", "a", "failed", "lose", reason="lost").run("r", "failed").end()


def never_started() -> Tale:
    tale = Tale().dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a").task("r", "a", "queued")
    tale.task("r", "a", "scheduled", reason="lost", data={"attempt": "never_start"})
    return tale.good("r", "a").run("r", "success").end()


def drained() -> Tale:
    tale = Tale().dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a")
    return tale.bad("r", "a", "scheduled", "lose", reason="drained").good("r", "a").run("r", "success").end()


def drained_often() -> Tale:
    """More often than it could be lost: it costs nothing."""
    tale = Tale().dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a")
    for _ in range(4):
        tale.bad("r", "a", "scheduled", "lose", reason="drained")
    return tale.good("r", "a").run("r", "success").end()


def rejected() -> Tale:
    tale = Tale().dag({"a": {"retries": 5}}).trigger("r").run("r", "running").ready("r", "a").task("r", "a", "queued")
    return tale.task("r", "a", "failed", reason="rejected", data={"attempt": "fail"}).run("r", "failed").end()


def cancelled() -> Tale:
    """One runs and obeys, one is queued, one waits: all of it stops."""
    tale = Tale().dag({"a": {}, "b": {}, "c": {}, "e": {"depends_on": ["a"]}}).trigger("r").run("r", "running")
    tale.ready("r", "a", "b", "c").work("r", "a", end=None).task("r", "b", "queued")
    tale.run("r", "cancelling", actor=_KEY, reason="user")
    for task in ("e", "c", "b"):
        tale.task("r", task, "cancelled", reason="user", actor=_KEY)
    tale.task("r", "a", "cancelling", reason="user", actor=_KEY)
    tale.call("cancel", "r", 202, answer={"run_id": "r", "version": 1, "state": "cancelling"})
    return tale.task("r", "a", "cancelled", data={"attempt": "cancel"}).run("r", "cancelled").end()


def cancelled_unstarted() -> Tale:
    tale = Tale().dag(_DIAMOND).trigger("r").run("r", "cancelled", actor=_KEY, reason="user")
    return tale.call("cancel", "r", 202).call("cancel", "r", 202).end()


def cancelled_too_late() -> Tale:
    """A success that beats the cancel stays a success."""
    tale = Tale().dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a").work("r", "a")
    tale.run("r", "cancelling", actor=_KEY, reason="user").task("r", "a", "cancelling", reason="user", actor=_KEY)
    return tale.call("cancel", "r", 202).task("r", "a", "success").run("r", "success").end()


def cleared() -> Tale:
    """A failed run is cleared from where it failed, and succeeds."""
    tale = Tale().dag({"a": {}, "b": {"depends_on": ["a"]}, "c": {"depends_on": ["b"]}}).trigger("r")
    tale.run("r", "running").good("r", "a").ready("r", "b").bad("r", "b")
    tale.task("r", "c", "upstream_failed", reason="trigger_rule").run("r", "failed")
    for task in ("b", "c"):
        tale.task("r", task, "pending", actor=_KEY, reason="clear")
    tale.run("r", "queued", actor=_KEY).call(
        "clear", "r", 200, answer={"items": [{"task_id": "b"}, {"task_id": "c"}]}, body={}
    )
    return tale.run("r", "running").good("r", "b", "c").run("r", "success").end()


def cleared_and_cancelled() -> Tale:
    """What was cleared is cancelled before it starts again: the run ends first, and then what is open of it."""
    tale = single()
    tale.lines = [line for line in tale.lines if line["type"] not in ("run", "instance", "used", "rest")]
    tale.task("r", "a", "pending", actor=_KEY, reason="clear").run("r", "queued", actor=_KEY)
    tale.call("clear", "r", 200, answer={"items": [TOUCHED]})
    tale.run("r", "cancelled", actor=_KEY, reason="user").task("r", "a", "cancelled", actor=_KEY, reason="user")
    return tale.call("cancel", "r", 202).end()


def failed_fast() -> Tale:
    tale = Tale().dag({"a": {}, "b": {}, "c": {"depends_on": ["b"]}}, fail_fast=True).trigger("r").run("r", "running")
    tale.ready("r", "a", "b").work("r", "b", end=None).bad("r", "a")
    tale.task("r", "c", "skipped", reason="fail_fast").task("r", "b", "cancelling", reason="fail_fast")
    return tale.task("r", "b", "cancelled", data={"attempt": "cancel"}).run("r", "failed").end()


def timed_out() -> Tale:
    tale = Tale().dag({"a": {}, "b": {"depends_on": ["a"]}}, run_timeout="PT1S").trigger("r").run("r", "running")
    tale.ready("r", "a").work("r", "a", end=None).run("r", "cancelling", reason="run_timeout")
    tale.task("r", "b", "skipped", reason="run_timeout").task("r", "a", "cancelling", reason="run_timeout")
    return tale.task("r", "a", "cancelled", data={"attempt": "cancel"}).run("r", "failed").end()


def allowed_to_fail() -> Tale:
    tale = Tale().dag({"a": {"allow_failure": True}, "b": {"depends_on": ["a"], "trigger_rule": "all_done"}})
    tale.trigger("r").run("r", "running").ready("r", "a").bad("r", "a")
    return tale.good("r", "b").run("r", "success").end()


def skipping() -> Tale:
    """An alarm that is not needed, and what comes after it."""
    tale = Tale().dag(
        {
            "a": {},
            "alarm": {"depends_on": ["a"], "trigger_rule": "one_failed"},
            "after": {"depends_on": ["alarm"]},
            "join": {"depends_on": ["a", "alarm"], "trigger_rule": "none_failed_min_one_success"},
        }
    )
    tale.trigger("r").run("r", "running").good("r", "a")
    for task in ("alarm", "after"):
        tale.task("r", task, "skipped", reason="trigger_rule")
    return tale.good("r", "join").run("r", "success").end()


def hasty() -> Tale:
    """Rules that do not wait for all."""
    tale = Tale().dag(
        {
            "a": {},
            "b": {},
            "one": {"depends_on": ["a", "b"], "trigger_rule": "one_success"},
            "now": {"depends_on": ["a", "b"], "trigger_rule": "always"},
        }
    )
    tale.trigger("r").run("r", "running").ready("r", "a", "b", "now").good("r", "now", "a", "one", "b")
    return tale.run("r", "success").end()


def empty() -> Tale:
    """Tasks without an attempt are settled where they stand."""
    tale = Tale().dag({"a": {"empty": {}}, "b": {"depends_on": ["a"]}, "c": {"empty": True, "depends_on": ["b"]}})
    tale.trigger("r").run("r", "running").task("r", "a", "success").good("r", "b").task("r", "c", "success")
    return tale.run("r", "success").end()


def repeated() -> Tale:
    """An answer is lost, the request is sent again under its key, and has had one effect."""
    tale = Tale().dag({"a": {}}).run("r", "queued", actor=_KEY)
    tale.call("trigger", None, None, key="k", answer=None).call("trigger", None, 503, key="k", answer=None)
    tale.call("trigger", None, 201, key="k", answer={"run_id": "r", "version": 1, "state": "queued"})
    tale.call("trigger", None, 201, key="k", answer={"run_id": "r", "version": 1, "state": "queued"})
    return tale.run("r", "running").good("r", "a").run("r", "success").end()


def unanswered() -> Tale:
    """One answer was lost and its run is there, one was lost and its run is not, one was refused."""
    tale = Tale().dag({"a": {}}).run("r", "queued", actor=_KEY).call("trigger", None, None).call("trigger", None, 500)
    tale.call("trigger", "other", 422).call("trigger", "r", 409)
    return tale.run("r", "running").good("r", "a").run("r", "success").end()


def read_back() -> Tale:
    """A client that asks on and on."""
    tale = Tale().dag({"a": {}}).trigger("r")
    tale.call("read", "r", answer={"run_id": "r", "state": "queued"}).run("r", "running")
    tale.call("read", "r", answer={"run_id": "r", "state": "running"}).call("read", "x", 404).good("r", "a")
    tale.run("r", "success").call("read", "r", None).call("read", "r", answer={"run_id": "r", "state": "success"})
    return tale.end()


def lowered() -> Tale:
    """A limit is lowered below its use: what runs goes on, and nothing is admitted until it drains."""
    tale = Tale().dag({"a": {}, "b": {}, "c": {}}, max_active_tasks=2).trigger("r").run("r", "running")
    tale.ready("r", "a", "b", "c").work("r", "a", "b")
    tale.dag({"a": {}, "b": {}, "c": {}}, version=2, max_active_tasks=1)
    return tale.task("r", "a", "success").task("r", "b", "success").good("r", "c").run("r", "success").end()


def lowered_slots() -> Tale:
    """An agent comes back with fewer slots."""
    tale = Tale().dag({"a": {}, "b": {}, "c": {}}).trigger("r").run("r", "running").ready("r", "a", "b", "c")
    tale.work("r", "a", "b")
    tale.lines.append({"type": "limit", "key": "slots:local@x", "capacity": 1})
    return tale.task("r", "a", "success").task("r", "b", "success").good("r", "c").run("r", "success").end()


def superseded() -> Tale:
    """A worker was cut off: its attempt goes on for a moment beside the next one."""
    tale = Tale(overlap=5).dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a").work("r", "a", end=None)
    tale.task("r", "a", "scheduled", reason="lost", data={"attempt": "lose"}).work("r", "a", end=None)
    tale.wrote("r", "a", "end", attempt_id="r.a.1", fence=1).wrote("r", "a", "end").task("r", "a", "success")
    return tale.run("r", "success").end()


def woken() -> Tale:
    """A host stood still for longer than its lease, and its attempt writes on before anybody can kill it."""
    tale = Tale().dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a").work("r", "a", end=None)
    tale.lines.append({"type": "pause", "from": tale.now, "until": tale.now + 20})
    tale.task("r", "a", "scheduled", reason="lost", data={"attempt": "lose"}).work("r", "a", end=None)
    tale.wrote("r", "a", "end").task("r", "a", "success").wait(20)
    return tale.wrote("r", "a", "end", attempt_id="r.a.1", fence=1).run("r", "success").end()


def woken_after_a_cancel() -> Tale:
    """A host stood still while a run on it was cancelled, and its attempt writes on before anybody can kill it."""
    tale = Tale(grace=10).dag({"a": {}}).trigger("r").run("r", "running").ready("r", "a").work("r", "a", end=None)
    tale.lines.append({"type": "pause", "from": tale.now, "until": tale.now + 30})
    tale.run("r", "cancelling", actor=_KEY, reason="user").task("r", "a", "cancelling", reason="user", actor=_KEY)
    tale.call("cancel", "r", 202).wait(15).task("r", "a", "cancelled", data={"attempt": "lose"}).run("r", "cancelled")
    return tale.wait(15).wrote("r", "a", "end").end()


def going_on() -> Tale:
    """The same, as its author wants it."""
    tale = Tale().dag({"a": {"on_lost_contact": "continue"}}).trigger("r").run("r", "running").ready("r", "a")
    tale.work("r", "a", end=None).task("r", "a", "scheduled", reason="lost", data={"attempt": "lose"})
    tale.work("r", "a", end=None).wrote("r", "a", "end", attempt_id="r.a.1", fence=1).wrote("r", "a", "end")
    return tale.task("r", "a", "success").run("r", "success").end()


def going_on_after_a_cancel() -> Tale:
    """Nobody can tell it any more that its run is cancelled."""
    tale = Tale(grace=10).dag({"a": {"on_lost_contact": "continue"}}).trigger("r").run("r", "running").ready("r", "a")
    tale.work("r", "a", end=None).task("r", "a", "scheduled", reason="lost", data={"attempt": "lose"})
    tale.run("r", "cancelling", actor=_KEY, reason="user").task("r", "a", "cancelled", reason="user", actor=_KEY)
    tale.run("r", "cancelled", actor=_KEY).call("cancel", "r", 202).wait(60)
    return tale.wrote("r", "a", "end", attempt_id="r.a.1", fence=1).end()


def gone_on_for_good() -> Tale:
    """The same, for longer than anybody waits."""
    tale = going_on_after_a_cancel()
    tale.lines.append({"type": "left", "what": "process 4711", "attempt_id": "r.a.1"})
    return tale


def big() -> Tale:
    """A run of more than one chunk that is cancelled before all of it was created."""
    tasks = {f"t{number}": {"depends_on": ["t0"] if number else []} for number in range(5)}
    tale = Tale().dag(tasks).trigger("r").run("r", "running")
    tale.event("r", "run.materialising", data={"created": 3, "of": 5})
    tale.run("r", "cancelling", actor=_KEY, reason="user")
    for number in range(3):
        tale.task("r", f"t{number}", "cancelled", reason="user", actor=_KEY)
    return tale.run("r", "cancelled", actor=_KEY).call("cancel", "r", 202).end()


def unfinished() -> Tale:
    """A history may end anywhere."""
    tale = Tale().dag(_DIAMOND).trigger("r").run("r", "running").good("r", "a").ready("r", "b", "c")
    return tale.work("r", "b", end=None).task("r", "c", "queued").end(rest=False)


def held() -> Tale:
    """A paused DAG's run may wait for ever."""
    tale = Tale().dag({"a": {}}).trigger("r").end()
    tale.lines[-1]["held"] = ["d/r"]
    return tale


def delayed() -> Tale:
    tale = Tale().dag({"a": {}}).trigger("r", body={"run_after": "2026-01-01T00:01:00Z"})
    return tale.wait(60).run("r", "running").good("r", "a").run("r", "success").end()


def answered_again() -> Tale:
    """The answer to a start is lost; the next one, before user code begins, has the output that has come since."""
    tale = Tale().dag({"a": {}, "b": {"depends_on": ["a"], "trigger_rule": "always"}}).trigger("r").run("r", "running")
    tale.ready("r", "a", "b").task("r", "b", "queued", "running").good("r", "a")
    tale.wrote("r", "b", "start").wrote("r", "b", "saw", from_task="a", from_attempt="r.a.1").wrote("r", "b", "end")
    return tale.task("r", "b", "success").run("r", "success").end()


def cleared_meanwhile() -> Tale:
    """The answer to a start is lost; before the next one its upstream is cleared, and has no output any more."""
    tale = Tale().dag({"a": {}, "b": {"depends_on": ["a"]}}).trigger("r").run("r", "running").good("r", "a")
    tale.ready("r", "b").task("r", "b", "queued", "running").task("r", "a", "pending", actor=_KEY, reason="clear")
    tale.call("clear", "r", 200, answer={"items": [{"task_id": "a"}]})
    tale.wrote("r", "b", "start").wrote("r", "b", "saw", from_task="a", from_attempt=None).wrote("r", "b", "end")
    return tale.task("r", "b", "success").good("r", "a").run("r", "success").end()


def taken() -> Tale:
    """A run's name is asked for again, for another time, and refused."""
    tale = Tale().dag({"a": {}}).trigger("r", body={"run_id": "r"})
    tale.call("trigger", "r", 409, body={"run_id": "r", "run_after": "2026-01-01T01:00:00Z"})
    return tale.run("r", "running").good("r", "a").run("r", "success").end()


def deleted() -> Tale:
    """A DAG is deleted with its runs and their events."""
    tale = Tale().dag({"a": {}}).call("trigger", None, 201, answer={"run_id": "r", "version": 1})
    tale.of_dag("deleted").call("delete", None, 204, answer=None)
    tale.lines.append({"type": "task", "what": "start", "attempt_id": "r.a.1", "dag_id": "d", "run_id": "r",
                       "task_id": "a", "fence": 1})  # fmt: skip
    return tale


def abandoned() -> Tale:
    """What is left behind is not judged before there was rest."""
    tale = unfinished()
    tale.lines.append({"type": "left", "what": "process 4711"})
    return tale


def by_the_api() -> Tale:
    """Only what the API gives: events run by run, ``seq`` for ``run_seq``, no order over runs."""
    tale = Tale(order="run", limits={}).dag({"a": {}}, max_active_runs=1)
    del tale.lines[-1]  # the log of a DAG is not to be had
    for run in ("r1", "r2"):
        tale.trigger(run).run(run, "running")
    for run in ("r1", "r2"):
        tale.good(run, "a").run(run, "success")
    return tale.end()


GOOD: Final[dict[str, Callable[[], Tale]]] = {
    tale.__name__: tale
    for tale in (
        diamond, single, chain, retried, exhausted, lost, given_up, never_started, drained, rejected, cancelled,
        cancelled_unstarted, cancelled_too_late, cleared, cleared_and_cancelled, failed_fast, timed_out,
        allowed_to_fail, skipping, hasty, empty, repeated, unanswered, read_back, lowered, lowered_slots, superseded,
        woken, woken_after_a_cancel, going_on, going_on_after_a_cancel, gone_on_for_good, big, unfinished, held,
        delayed, taken, answered_again, cleared_meanwhile, deleted, by_the_api, drained_often, abandoned,
        *tales_of_answers.ALL,
    )
}  # fmt: skip
