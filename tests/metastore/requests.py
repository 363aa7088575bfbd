"""What the clients of the reference scenario ask for, in their order; and how every run ends, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from dag.document import content_hash
from dag.spec import load
from metastore.commands.clear import clear_run
from metastore.commands.dags import delete_dag, patch_dag, purge_runs, put_dag
from metastore.commands.runs import NewRun, create_run
from metastore.commands.stopping import cancel_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from metastore.store import Tx

ACTOR: Final = "key:test"
FINAL: Final = ("success", "failed", "cancelled")

_LITTLE: Final = {"retries": 2, "retry_delay": "PT0.01S"}
MAIN: Final[dict[str, Any]] = {
    "max_active_runs": 2,
    "max_active_tasks": 3,
    "tasks": {
        "a": {"command": ["true"]},
        "flaky": {"command": ["true"], "depends_on": ["a"], **_LITTLE},
        "lost": {"command": ["true"], "depends_on": ["a"]},
        "unlucky": {"command": ["true"], "depends_on": ["a"]},
        "drained": {"command": ["true"], "depends_on": ["a"]},
        "join": {"empty": {}, "depends_on": ["flaky", "lost", "unlucky", "drained"]},
        "alarm": {"command": ["true"], "depends_on": ["join"], "trigger_rule": "one_failed"},
        "last": {"command": ["true"], "depends_on": ["join", "alarm"], "trigger_rule": "none_failed_min_one_success"},
    },
}
DOCUMENTS: Final[dict[str, dict[str, Any]]] = {
    "main": MAIN,
    "fast": {
        "fail_fast": True,
        "tasks": {"wrong": {"command": ["true"]}, "stops": {"command": ["true"]}, "never": {
            "command": ["true"], "depends_on": ["wrong", "stops"]}},
    },
    "slow": {"run_timeout": "PT0.02S", "tasks": {"stops": {"command": ["true"]}, "b": {
        "command": ["true"], "depends_on": ["stops"]}}},
    "far": {
        "tasks": {
            "x": {"command": ["true"], "executor": "farm", "queue": "gpu"},
            "y": {"command": ["true"], "executor": "farm", "queue": "gpu", "depends_on": ["x"]},
        }
    },
    "gone": {"tasks": {"refused": {"command": ["true"]}}},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One request: what it does, and when it is sent."""

    op: str
    dag_id: str
    run_id: str | None
    effect: Callable[[Tx], Any]
    #: Given the states of all runs.
    ready: Callable[[dict[tuple[str, str], str]], bool]


def _put(dag_id: str, **changes: Any) -> Request:
    document = DOCUMENTS[dag_id] | changes

    def effect(tx: Tx) -> Any:
        spec = load(document, dag_id=dag_id)
        put = put_dag(tx, spec=spec, document=document, content_hash=content_hash(document), actor=ACTOR)
        return {"version": put.version}

    return Request("put", dag_id, None, effect, lambda _: True)


def _trigger(dag_id: str, run_id: str) -> Request:
    def effect(tx: Tx) -> Any:
        early = datetime(2025, 1, 1, tzinfo=UTC)
        new = NewRun(
            dag_id=dag_id, run_id=run_id, request_id=f"{dag_id}/{run_id}", params={}, logical_date=None,
            run_after=early, actor=ACTOR, labels={"of": "the reference"},
        )  # fmt: skip
        run = create_run(tx, new).run
        return {"run_id": run.run_id, "version": run.version, "state": run.state}

    return Request("trigger", dag_id, run_id, effect, lambda _: True)


def _cancel(dag_id: str, run_id: str, *when: str) -> Request:
    def effect(tx: Tx) -> Any:
        run = cancel_run(tx, dag_id, run_id, actor=ACTOR)
        return {"run_id": run.run_id, "version": run.version, "state": run.state}

    return Request("cancel", dag_id, run_id, effect, lambda states: states[dag_id, run_id] in when)


def _clear(dag_id: str, run_id: str) -> Request:
    def effect(tx: Tx) -> Any:
        touched = clear_run(
            tx, dag_id, run_id, task_ids=None, only_failed=False, downstream=False, dry_run=False, actor=ACTOR
        )
        return {"items": [row.task_id for row in touched]}

    return Request("clear", dag_id, run_id, effect, lambda states: states[dag_id, run_id] in FINAL)


def _pause(dag_id: str, *, paused: bool) -> Request:
    def effect(tx: Tx) -> Any:
        return {"paused": patch_dag(tx, dag_id, actor=ACTOR, paused=paused, tags=["t"]).paused}

    return Request("patch", dag_id, None, effect, lambda _: True)


def _delete(dag_id: str, run_id: str) -> Request:
    def effect(tx: Tx) -> Any:
        purge_runs(tx, dag_id)
        delete_dag(tx, dag_id, actor=ACTOR)

    return Request("delete", dag_id, None, effect, lambda states: states[dag_id, run_id] in FINAL)


REQUESTS: Final = (
    _put("main", max_active_tasks=1),
    _put("main"),
    _put("main"),
    *(_put(dag_id) for dag_id in ("fast", "slow", "far", "gone")),
    _pause("main", paused=True),
    *(_trigger("main", run_id) for run_id in ("r1", "r2", "r3")),
    _pause("main", paused=False),
    *(_trigger(dag_id, "r1") for dag_id in ("gone", "fast", "slow", "far")),
    _cancel("main", "r3", "queued", "running", *FINAL),
    _cancel("main", "r2", "running", *FINAL),
    _clear("main", "r2"),
    _delete("gone", "r1"),
)
#: How every run ends, whatever happens on the way.
VERDICTS: Final = {
    ("main", "r1"): "success",
    ("main", "r2"): "success",
    ("main", "r3"): "cancelled",
    ("fast", "r1"): "failed",
    ("slow", "r1"): "failed",
    ("far", "r1"): "success",
}
