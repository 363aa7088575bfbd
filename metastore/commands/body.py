"""The body of a task: what a supervisor needs to run one attempt, with every reference resolved."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from sqlalchemy import bindparam, select

from dag.plan import resolved
from dag.references import Scope, Unresolved
from dag.states import TaskState
from metastore.among import among
from metastore.models.runs import outputs, task_instances

if TYPE_CHECKING:
    from datetime import datetime

    from dag.plan import PlanTask
    from metastore.commands.turn import Turn
    from metastore.store import Tx
    from worker.protocol import TaskBody

_OUTPUTS: Final = (
    select(task_instances.c.task_no, outputs.c.value)
    .select_from(task_instances.outerjoin(outputs, outputs.c.instance == task_instances.c.id))
    .where(
        task_instances.c.run == bindparam("run"),
        task_instances.c.map_index == -1,
        # What did not succeed is left out: a task that cleans up finds null there.
        task_instances.c.state == TaskState.SUCCESS.value,
        among(task_instances.c.task_no, "numbers"),
    )
)


def build_body(tx: Tx, turn: Turn, instance: Any, try_number: int) -> TaskBody:
    """Return what to run; raises :exc:`~dag.references.Unresolved` where its references cannot be put in."""
    task = turn.task(instance.task_no)
    texts = _outputs(tx, turn, task)
    try:
        outputs = {name: None if text is None else json.loads(text) for name, text in texts.items()}
        scope = Scope(params=turn.row.params, outputs=outputs, run=_run_facts(turn), try_number=try_number)
        given = resolved(task, scope)
    except Unresolved:
        raise
    except (RecursionError, ValueError, TypeError, LookupError) as error:
        # Whatever a stored value does to the reader, it is this attempt's end and nobody else's.
        raise Unresolved(f"Its references cannot be put in: {type(error).__name__}: {error}") from error
    kind = cast("Literal['command', 'python', 'http']", task.kind)  # an empty task has no attempt
    frame = _frame(turn, task, instance, try_number, kind, given.env)
    return frame | given.body  # type: ignore[return-value]  # this kind's own keys, checked with the document


def _frame(  # what a task is beside its own kind's keys
    turn: Turn,
    task: PlanTask,
    instance: Any,
    try_number: int,
    kind: Literal["command", "python", "http"],
    env: dict[str, str],
) -> TaskBody:
    return {
        "dag_id": turn.dag_id,
        "run_id": turn.run_id,
        "task_id": task.task_id,
        "map_index": instance.map_index,
        "try_number": try_number,
        "logical_date": _iso(turn.row.logical_date) or "",
        "kind": kind,
        "env": env,
        "cwd": task.cwd,
        "timeout": None if task.timeout is None else task.timeout.total_seconds(),
        "kill_grace": task.kill_grace.total_seconds(),
        "on_lost_contact": task.on_lost_contact,
    }


def failing_body(turn: Turn, instance: Any, try_number: int, why: str) -> TaskBody:
    """Return a task that says *why* and fails, for a supervisor that has won what cannot be put together any more.

    One that has begun, and only asks again, ignores it.
    """
    task = turn.task(instance.task_no)
    return _frame(turn, task, instance, try_number, "command", {}) | {
        "argv": ["/bin/sh", "-c", 'echo "runyard: $1" >&2; exit 1', "sh", why],
        "shell": None,
    }


def _outputs(tx: Tx, turn: Turn, task: PlanTask) -> dict[str, str | None]:
    """Return the JSON texts that the task's references may name, by task."""
    if not task.needs:
        return {}
    rows = tx.conn.execute(_OUTPUTS, {"run": turn.id, "numbers": list(task.needs)})
    return {turn.task(row.task_no).task_id: row.value for row in rows}


def _run_facts(turn: Turn) -> dict[str, Any]:
    row = turn.row
    return {
        "run_id": turn.run_id,
        "dag_id": turn.dag_id,
        "run_type": row.run_type,
        "logical_date": _iso(row.logical_date),
        "data_interval_start": _iso(row.data_interval_start),
        "data_interval_end": _iso(row.data_interval_end),
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
