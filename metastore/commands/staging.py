"""What a remote supervisor sends ahead of the end and asks for after the start: its output, and those before it."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from dag.errors import BadCredential, Gone, NotFound
from dag.states import AttemptState
from metastore.among import among
from metastore.models.attempts import attempts, staged_outputs
from metastore.models.runs import outputs, runs, task_instances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dag.plan import Plan
    from metastore.store import Tx

_INSERT: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_ATTEMPT: Final = select(attempts.c.state, attempts.c.key_hash).where(attempts.c.id == bindparam("attempt_id"))
_RUN_OF: Final = (
    select(
        runs.c.id,
        runs.c.dag_id,
        runs.c.version,
        runs.c.content_hash,
        task_instances.c.task_no,
        attempts.c.key_hash,
        attempts.c.state,
    )
    .select_from(
        attempts.join(task_instances, task_instances.c.id == attempts.c.instance).join(
            runs, runs.c.id == attempts.c.run
        )
    )
    .where(attempts.c.id == bindparam("attempt_id"))
)
_OUTPUT: Final = (
    select(outputs.c.value)
    .select_from(outputs.join(task_instances, task_instances.c.id == outputs.c.instance))
    .where(
        task_instances.c.run == bindparam("run"),
        task_instances.c.task_no == bindparam("number"),
        task_instances.c.map_index == -1,
    )
)
_DROP: Final = delete(staged_outputs).where(among(staged_outputs.c.attempt_id, "attempts"))


def _stage(dialect: str) -> Any:
    statement = _INSERT[dialect](staged_outputs)
    return statement.on_conflict_do_update(index_elements=["attempt_id"], set_={"value": statement.excluded.value})


_STAGE: Final = {dialect: _stage(dialect) for dialect in _INSERT}


def stage_output(tx: Tx, attempt_id: str, *, key_hash: str, value: str) -> None:
    """Keep *value* (JSON text) until the attempt ends; a later one replaces it."""
    row = tx.conn.execute(_ATTEMPT, {"attempt_id": attempt_id}).first()
    if row is None:
        raise NotFound("attempt", attempt_id)
    if row.key_hash is None or not hmac.compare_digest(row.key_hash, key_hash):
        raise BadCredential(f"This is not the key of the attempt {attempt_id}.")
    if row.state != AttemptState.RUNNING.value:
        raise Gone("attempt_gone", f"The attempt {attempt_id} is {row.state}: it takes no output any more.")
    tx.conn.execute(_STAGE[tx.conn.dialect.name], {"attempt_id": attempt_id, "value": value})


def drop_staged(tx: Tx, attempt_ids: Sequence[str]) -> None:
    """Keep nothing that is staged for these attempts any longer."""
    if attempt_ids:
        tx.conn.execute(_DROP, {"attempts": list(attempt_ids)})


def read_input(tx: Tx, attempt_id: str, *, key_hash: str, task_id: str) -> str | None:
    """Return the output (JSON text) of a task that is upstream of an attempt's own, directly or not; None is null."""
    row = tx.conn.execute(_RUN_OF, {"attempt_id": attempt_id}).first()
    if row is None:
        raise NotFound("attempt", attempt_id)
    if row.key_hash is None or not hmac.compare_digest(row.key_hash, key_hash):
        raise BadCredential(f"This is not the key of the attempt {attempt_id}.")
    if row.state != AttemptState.RUNNING.value:
        raise Gone("attempt_gone", f"The attempt {attempt_id} is {row.state}: it needs no input any more.")
    plan = tx.plans.get(tx.conn, row.dag_id, row.version, row.content_hash)
    number = plan.numbers.get(task_id)
    if number is None or not _is_upstream(plan, number, row.task_no):
        raise NotFound("upstream task", task_id)
    value: str | None = tx.conn.execute(_OUTPUT, {"run": row.id, "number": number}).scalar()
    return value


def _is_upstream(plan: Plan, number: int, of: int) -> bool:
    seen = {of}
    waiting = [of]
    while waiting:
        for upstream in plan.tasks[waiting.pop()].upstream:
            if upstream == number:
                return True
            if upstream > number and upstream not in seen:  # an upstream always has the smaller number
                seen.add(upstream)
                waiting.append(upstream)
    return False
