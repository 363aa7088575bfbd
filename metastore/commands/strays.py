"""Task instances that are meant for an executor that nobody has any more.

Who looks for them does so in a transaction of a command, although it writes nothing: whether a scheduler is there goes
by leases, and these by the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select, update

from dag.states import RunState, TaskState
from metastore.among import among
from metastore.commands.turn import open_turn
from metastore.each import expect
from metastore.models.runs import task_instances
from metastore.queries.strays import UNPLACED, runs_with_strays, strays, there

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from metastore.queries.strays import Strays
    from metastore.store import Tx

_instance = task_instances.c
_STRAYS: Final = select(_instance.id, _instance.task_no, _instance.executor, _instance.state).where(
    _instance.run == bindparam("run"), _instance.state.in_(UNPLACED), ~among(_instance.executor, "known")
)
_MOVE: Final = (
    update(task_instances)
    .where(among(_instance.id, "ids"), _instance.state.in_(UNPLACED))
    .values(executor=bindparam("to"))
)


@dataclass(frozen=True, slots=True)
class Followed:
    """What became of a run's strays."""

    #: How many follow the default now.
    moved: int
    #: Instances that stay, with the executors that their tasks name: nobody but the author of the DAG can change that.
    named: dict[int, str]


def find_strays(tx: Tx, own: Sequence[str], within: timedelta | None, after: int) -> Strays:
    """Return what is ready or offered for nobody; see :func:`metastore.queries.strays.strays`."""
    return strays(tx.conn, tx.now, own, within, after)


def find_runs_with_strays(tx: Tx, own: Sequence[str], within: timedelta | None, after: int) -> list[int]:
    """Return the runs that have any; see :func:`metastore.queries.strays.runs_with_strays`."""
    return runs_with_strays(tx.conn, tx.now, own, within, after)


def follow_default(tx: Tx, run: int, default: str, own: Sequence[str], within: timedelta | None) -> Followed:
    """Have a running run's instances follow the *default* executor that had an earlier default, which is gone.

    Only instances without an attempt, of tasks that name no executor.  An executor that another scheduler has is not
    gone (:func:`~metastore.queries.strays.there`).
    """
    turn = open_turn(tx, run)
    if turn is None or turn.state is not RunState.RUNNING:
        return Followed(0, {})
    rows = tx.conn.execute(_STRAYS, {"run": run, "known": there(tx.conn, tx.now, own, within)}).all()
    named = {row.id: row.executor for row in rows if turn.task(row.task_no).executor is not None}
    mine = [row for row in rows if row.id not in named]
    if mine:
        done = tx.conn.execute(_MOVE, {"ids": [row.id for row in mine], "to": default})
        expect(done.rowcount, len(mine), "follow the default executor")
        data = {"from": sorted({row.executor for row in mine}), "to": default, "instances": len(mine)}
        turn.event("run.moved", actor="scheduler", reason="executor", data=data)
        if any(row.state == TaskState.SCHEDULED for row in mine):
            tx.topics.add("ready")
    turn.close()
    return Followed(len(mine), named)
