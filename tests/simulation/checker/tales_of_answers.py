"""Good histories of answers: requests that are repeated, answers that are lost, changes of DAGs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.checker.tale import Tale

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY: Final = "key:test"
#: An instance as a clear found it.
TOUCHED: Final = {"task_id": "a", "map_index": -1, "state": "success", "try_number": 1}


def defined() -> Tale:
    """A document, the same again, another one; one whose answer is lost, one that is lost itself, one refused."""
    tale = Tale().put({"a": {}}, key="p1").call("put", None, 200, answer={"version": 1, "changed": False}, key="p2")
    tale.trigger("r1").put({"a": {}, "b": {}}, version=2, tags=["x"], key="p3").trigger("r2")
    tale.lines[-1]["answer"]["version"] = 2
    tale.call("put", None, 200, answer={"version": 2, "changed": True}, key="p3")
    tale.dag({"c": {}}, version=3, tags=["x"]).call("put", None, None, answer=None).call("put", None, 503, answer=None)
    tale.call("put", None, 422, answer={"code": "invalid"}).call("trigger", "early", 201, body={"version": 1}, answer={
        "run_id": "early", "version": 1, "state": "queued"}).run("early", "queued", actor=_KEY)  # fmt: skip
    return tale


def patched() -> Tale:
    """Paused, paused again, unpaused under a lost answer, tagged; a late repeat is answered as it was first."""
    tale = Tale().put({"a": {}}, tags=["x"]).patch(paused=True, key="k1")
    tale.call("patch", None, 200, body={"paused": True}, answer={"paused": True, "tags": ["x"]})
    tale.call("patch", None, None, body={"paused": False}, answer=None, key="k2").patch(paused=False, key="k2")
    tale.call("patch", None, 200, body={"paused": True}, answer={"paused": True}, key="k1")
    tale.patch(tags=["y", "z"]).call("patch", None, 200, body={"tags": ["y", "y", "z"]}, answer={"tags": ["y", "z"]})
    return tale.call("patch", None, 404, body={"paused": True}, answer=None).call("patch", None, 200, body={"tags": [
        "y", "z"], "paused": None}, answer={"paused": False, "tags": ["y", "z"]})  # fmt: skip


def told_again() -> Tale:
    """Every kind of request is sent again after it was answered: the same answers, no more effect."""
    tale = Tale().put({"a": {}}, key="put").trigger("r", key="trigger").run("r", "running").good("r", "a")
    tale.run("r", "success").task("r", "a", "pending", actor=_KEY, reason="clear").run("r", "queued", actor=_KEY)
    tale.call("clear", "r", 200, answer={"items": [TOUCHED], "dry_run": False}, key="clear")
    tale.run("r", "cancelled", actor=_KEY, reason="user").task("r", "a", "cancelled", actor=_KEY, reason="user")
    tale.call("cancel", "r", 202, answer={"run_id": "r", "version": 1, "state": "cancelled"}, key="cancel")
    for line in [line for line in tale.lines if line["type"] == "call"]:
        tale.lines.append(line | {"t0": line["t0"] + 60, "t1": line["t1"] + 60})
    return tale.end()


def waited_for() -> Tale:
    """A trigger that waits for its end tells how far the run is; the rest of its answer is the first one again."""
    tale = Tale().dag({"a": {}}).run("r", "queued", actor=_KEY)
    for state in ("running", "success"):
        answer = {"run_id": "r", "version": 1, "state": state, "ended_at": state == "success" or None, "warnings": []}
        tale.call("trigger", None, 201, answer=answer, key="k", wait=True)
    return tale.run("r", "running").good("r", "a").run("r", "success").end()


def cleared_twice() -> Tale:
    """One is cleared, runs and is cleared again by a request whose answer is lost; then both are."""
    tale = Tale().dag({"a": {}, "b": {}}).trigger("r").run("r", "running").good("r", "a", "b").run("r", "success")
    for tasks, status in (("a", 200), ("a", None), ("ab", 200)):
        for task in tasks:
            tale.task("r", task, "pending", actor=_KEY, reason="clear")
        items = [{"task_id": task, "map_index": -1} for task in tasks]
        tale.run("r", "queued", actor=_KEY).call("clear", "r", status, answer={"items": items} if status else None)
        tale.run("r", "running").good("r", *tasks).run("r", "success")
    return tale.call("clear", "r", 200, body={"only_failed": True}, answer={"items": []}).end()


def cancelled_again() -> Tale:
    """Cancelled, cleared and cancelled once more."""
    tale = Tale().dag({"a": {}}).trigger("r").run("r", "running").good("r", "a").run("r", "success")
    for key in ("k1", "k2"):
        tale.task("r", "a", "pending", actor=_KEY, reason="clear").run("r", "queued", actor=_KEY)
        tale.call("clear", "r", 200, answer={"items": ["a"]})
        tale.run("r", "cancelled", actor=_KEY, reason="user").task("r", "a", "cancelled", actor=_KEY, reason="user")
        tale.call("cancel", "r", 202, key=key, answer={"run_id": "r", "version": 1, "state": "cancelled"})
    return tale.end()


def cleared_around_a_cancel() -> Tale:
    """A clear under a lost answer comes after the cancel that was sent after it: what it starts may go on."""
    tale = Tale(grace=1).dag({"a": {}}).trigger("r").run("r", "running").good("r", "a").run("r", "success")
    tale.call("clear", "r", None, answer=None).task("r", "a", "pending", actor=_KEY, reason="clear")
    tale.run("r", "queued", actor=_KEY).run("r", "cancelled", actor=_KEY, reason="user")
    tale.task("r", "a", "cancelled", actor=_KEY, reason="user").call("cancel", "r", 202)
    tale.task("r", "a", "pending", actor=_KEY, reason="clear").run("r", "queued", actor=_KEY)
    tale.call("clear", "r", 503, answer=None).wait(60)
    return tale.run("r", "running").good("r", "a").run("r", "success").end()


def deleted_unheard() -> Tale:
    """A DAG is deleted by a request whose answer is lost."""
    tale = Tale().dag({"a": {}}).call("trigger", None, 201, answer={"run_id": "r", "version": 1})
    return tale.of_dag("deleted").call("delete", None, None, answer=None)


ALL: Final[tuple[Callable[[], Tale], ...]] = (
    defined, patched, told_again, waited_for, cleared_twice, cancelled_again, cleared_around_a_cancel,
    deleted_unheard,
)  # fmt: skip
