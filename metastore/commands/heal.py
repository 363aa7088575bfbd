"""Healing: what the safety poll verifies, and puts right with an event where it was wrong.

Every counter can be derived from rows; should one ever be wrong, it is recomputed, never patched.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, insert, select, update

from dag.states import RUN_FINAL, RunState, TaskState
from dag.trigger_rules import Counts, Verdict, judge
from metastore.commands.advance import COUNTERS
from metastore.commands.clear import instances, recount
from metastore.commands.turn import open_turn, unblock
from metastore.models.events import events
from metastore.models.limits import limits
from metastore.models.runs import task_instances
from metastore.queries.work import used as count_used

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metastore.commands.turn import Turn
    from metastore.records import TaskRecord
    from metastore.store import Tx

_FIRST_QUARANTINE: Final = timedelta(seconds=1)
_LONGEST_QUARANTINE: Final = timedelta(minutes=5)
_LONGEST_REASON: Final = 500
_MOST_UNBLOCKED: Final = 1_000

_instance = task_instances.c
_LIMIT: Final = select(limits.c.capacity, limits.c.used).where(limits.c.key == bindparam("limit_key")).with_for_update()
_SET_USED: Final = (
    update(limits)
    .where(limits.c.key == bindparam("limit_key"), limits.c.used == bindparam("was"))
    .values(used=bindparam("now_used"))
)
_ADD_EVENT: Final = insert(events).inline()


def verify_run(tx: Tx, run: int) -> bool:
    """Recompute the counters of a run that has not ended; return whether anything was wrong.

    Wakes pending instances whose rule holds already, and ends a run that has nothing left to do.
    """
    turn = open_turn(tx, run)
    if turn is None or turn.state in RUN_FINAL or turn.state is RunState.QUEUED:
        return False
    rows = instances(tx, run)
    before = (turn.unfinished, turn.bad, turn.cancelled)
    now_in = {row.task_no: TaskState(row.state) for row in rows}
    wrong = recount(turn, rows, now_in)
    totals = (turn.unfinished, turn.bad, turn.cancelled)
    asleep = [row.id for row in rows if turn.materialised and _sleeps(turn, row, now_in)]
    ends = turn.materialised and not turn.unfinished
    if not wrong and before == totals and not asleep and not ends:
        return False
    data = {"instances": wrong, "asleep": len(asleep), "totals_before": list(before), "totals": list(totals)}
    turn.event("run.healed", actor="scheduler", reason="counters", data=data)
    for instance in asleep:
        tx.conn.execute(_WAKE, {"instance": instance, "now": tx.now})
        tx.topics.add("due")
    turn.close()
    return True


_WAKE: Final = (
    update(task_instances)
    .where(_instance.id == bindparam("instance"), _instance.state == TaskState.PENDING.value)
    .values(due_at=bindparam("now"))
)


def _sleeps(turn: Turn, row: TaskRecord, now_in: Mapping[int, TaskState]) -> bool:
    """Whether *row* waits although its trigger rule is decided and nobody was told to look at it."""
    if row.state != TaskState.PENDING or row.due_at is not None:
        return False
    task = turn.task(row.task_no)
    ended = Counter(now_in[number] for number in task.upstream if number in now_in)
    counts = Counts(*(ended[state] for state in COUNTERS))
    return judge(task.trigger_rule, len(task.upstream), counts) is not Verdict.WAIT


def verify_limit(tx: Tx, key: str) -> bool:
    """Recount what a limit holds, under its lock; return whether it was wrong.

    Also lets go of instances that it held back and has room for.
    """
    row = tx.conn.execute(_LIMIT, {"limit_key": key}).first()
    if row is None:
        return False
    used = count_used(tx.conn, key)
    if used != row.used:
        tx.conn.execute(_SET_USED, {"limit_key": key, "was": row.used, "now_used": used})
        data = {"key": key, "was": row.used, "is": used}
        tx.conn.execute(_ADD_EVENT, {"at": tx.now, "kind": "limit.healed", "actor": "scheduler", "data": data})
        tx.topics.update(("ready", "runs"))
    room = _MOST_UNBLOCKED if row.capacity is None else row.capacity - used
    if room > 0 and unblock(tx, key, room):
        tx.topics.add("ready")
    return bool(used != row.used)


def quarantine_run(tx: Tx, run: int, why: str) -> Any:
    """Leave a run alone for a while that the scheduler failed on; the rest goes on.  Returns until when."""
    turn = open_turn(tx, run)
    if turn is None or turn.state in RUN_FINAL:
        return None
    times = turn.row.quarantines
    until = tx.now + min(_FIRST_QUARANTINE * 2 ** min(times, 16), _LONGEST_QUARANTINE)
    turn.quarantined_until, turn.quarantines = until, times + 1
    reason = why if len(why) <= _LONGEST_REASON else why[: _LONGEST_REASON - 1] + "…"
    turn.event(
        "run.quarantined", actor="scheduler", reason=reason, data={"until": until.isoformat(), "times": times + 1}
    )
    turn.close()
    tx.topics.add("due")
    return until
