"""Bad histories of answers: what clients were told, beside a log that says otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.simulation.checker import tales
from tests.simulation.checker import tales_of_answers as answers
from tests.simulation.checker.mutations import (
    add,
    after,
    at,
    both,
    change,
    client,
    drop,
    of_run,
    put,
    stripped,
)  # fmt: skip
from tests.simulation.checker.tale import BEGIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.checker.mutations import Change
    from tests.simulation.checker.tale import Lines, Tale
    from tests.simulation.checker.violations import Line


def of_dag(kind: str, **more: Any) -> Line:
    line = {"type": "event", "kind": f"dag.{kind}", "dag_id": "d", "actor": "key:test", "at": BEGIN.isoformat()}
    return {**line, **more}


def asked(op: str, status: int | None, answer: Any = None, **more: Any) -> Line:
    """Return a request about the DAG, sent after everything else."""
    return {**client(op, status or 0, answer), "run_id": None, "status": status, **more}


def says(new: dict[str, Any], **match: Any) -> Change:
    """Have an answer say something else."""

    def apply(lines: Lines) -> None:
        line = lines[at(lines, **match)]
        line["answer"] = {**line["answer"], **new}

    return apply


def late() -> Tale:
    """The second of two versions, with all that was answered."""
    tale = answers.defined()
    del tale.lines[at(tale.lines, run_id="early", op="trigger") :]
    return tale


_S = stripped
_PUT: Final = {"type": "event", "kind": "dag.put"}

ANSWERS: Final[tuple[tuple[str, str, Callable[[], Tale], Change], ...]] = (
    # put
    ("I-9", "an accepted version is not in the log", answers.defined, drop(**_PUT, nth=1)),
    ("I-9", "an accepted version is not in the store", answers.defined, drop(type="dag", version=2)),
    ("I-9", "an accepted version is stored as another document", answers.defined, change(
        {"document": {"tasks": {"a": {"command": ["false"]}}}}, type="dag", version=1)),
    ("I-9", "the same again is answered as a version that is not", answers.defined, says({"version": 7}, key="p2")),
    ("I-9", "a trigger is answered an older version than was there", late, says({"version": 1}, op="trigger", nth=1)),
    ("I-9", "a put is answered an older version than was there", answers.defined, put(
        asked("put", 200, {"version": 1, "changed": False}))),
    ("I-10", "a version that nobody asked for", late, both(
        drop(op="put", status=None), drop(op="put", status=503))),
    ("I-10", "a refused put made a version", late, both(
        change({"status": 422}, op="put", status=None), change({"status": 412}, op="put", status=503))),
    ("I-11", "two versions of one unanswered put", answers.patched, both(
        add(after(kind="dag.put"), of_dag("put", data={"version": 2}), of_dag("put", data={"version": 3})),
        put(asked("put", None), {"type": "dag", "dag_id": "d", "version": 2, "document": {"tasks": {}, "tags": ["x"]}},
            {"type": "dag", "dag_id": "d", "version": 3, "document": {"tasks": {}, "tags": ["x"]}}))),
    ("I-11", "two puts are answered that they made one version", answers.defined, change(
        {"key": "other"}, op="put", key="p3", nth=1)),
    ("I-11", "a repeated put makes another version", answers.patched, both(
        put(asked("put", None, key="again"), asked("put", None, key="again")),
        add(after(kind="dag.put"), of_dag("put", data={"version": 2}), of_dag("put", data={"version": 3})))),
    # patch
    ("I-9", "an accepted pause is not in the log", answers.defined, put(
        asked("patch", 200, {"paused": True}, body={"paused": True}))),
    ("I-9", "an accepted pause is not in the log again", answers.patched, put(
        asked("patch", 200, {"paused": True}, body={"paused": True}))),
    ("I-9", "accepted tags are not in the log", answers.patched, drop(kind="dag.tagged")),
    ("I-9", "a pause is answered as none", answers.patched, says({"paused": False}, op="patch", nth=1)),
    ("I-10", "a pause that nobody asked for", answers.defined, put(of_dag("paused"))),
    ("I-10", "a refused patch tagged", answers.patched, both(
        change({"status": 412, "answer": None}, op="patch", body={"tags": ["y", "z"]}),
        change({"status": 412, "answer": None}, op="patch", body={"tags": ["y", "y", "z"]}),
        change({"status": 412, "answer": None}, op="patch", nth=-1))),
    ("I-11", "a repeated pause pauses again", answers.patched, put(of_dag("paused"))),
    ("I-18", "paused twice", answers.patched, both(
        add(after(kind="dag.paused"), of_dag("paused")), put(asked("patch", None, body={"paused": True})))),
    # delete
    ("I-9", "an accepted delete is not in the log", tales.deleted, drop(kind="dag.deleted")),
    ("I-10", "a delete that nobody asked for", answers.defined, put(of_dag("deleted"))),
    ("I-11", "one delete deletes twice", tales.deleted, put(of_dag("deleted"))),
    # clear
    ("I-9", "the second of two clears had no effect", answers.told_again, put(
        {**client("clear", 200, {"items": [answers.TOUCHED]}), "t0": 3.5, "t1": 3.6})),
    ("I-9", "a clear touched less than it was answered", answers.cleared_twice, says(
        {"items": ["a", "b"]}, op="clear")),
    ("I-9", "a clear is answered of another fence than it cleared", answers.told_again, both(
        says({"items": [answers.TOUCHED | {"try_number": 2}]}, key="clear"),
        says({"items": [answers.TOUCHED | {"try_number": 2}]}, key="clear", nth=1))),
    ("I-11", "a clear touched more than it was answered", answers.cleared_twice, both(
        drop(op="clear", status=None), says({"items": ["a"]}, op="clear", nth=1))),
    ("I-11", "an unanswered clear cleared twice", answers.cleared_twice, drop(op="clear", status=200)),
    ("I-10", "a run is opened again that nobody cleared", _S(tales.single), add(
        after(kind="run.success"), of_run("r", "queued", "success", actor="key:test"),
        of_run("r", "running", "queued"), of_run("r", "success", "running"))),
    ("I-11", "one clear opens a run twice", _S(tales.cleared), add(
        after(kind="run.success"), of_run("r", "queued", "success", actor="key:test"),
        of_run("r", "running", "queued"), of_run("r", "success", "running"))),
    # cancel
    ("I-11", "one cancel stops a run twice", answers.cancelled_again, drop(op="cancel", nth=1)),
    ("I-9", "the second of two cancels had no effect", _S(answers.cancelled_again), both(
        drop(kind="run.cancelled", nth=1), drop(kind="task.cancelled", nth=1),
        change({"held": ["d/r"]}, type="rest"))),
    # repeats under one key
    *(("I-11", f"a repeated {op} is answered otherwise", answers.told_again, says(new, key=op, nth=1))
      for op, new in (
          ("put", {"changed": False}), ("trigger", {"state": "running"}), ("clear", {"dry_run": True}),
          ("cancel", {"state": "cancelling"}))),
    ("I-11", "a repeated patch is answered otherwise", answers.patched, says({"tags": []}, key="k1", nth=1)),
    ("I-11", "a repeat is answered with another status", answers.told_again, change({"status": 200}, key="put", nth=1)),
    ("I-11", "a repeat of what was accepted is refused", answers.told_again, change(
        {"status": 409, "answer": {"code": "illegal_step"}}, key="cancel", nth=1)),
    ("I-11", "a trigger that waited is answered another time", answers.waited_for, says(
        {"warnings": ["dag_paused"]}, op="trigger", nth=1)),
    ("I-11", "a trigger that did not wait tells how far it is", answers.waited_for, both(
        change({"wait": False}, op="trigger"), change({"wait": None}, op="trigger", nth=1))),
)  # fmt: skip
