"""Advancing a run: what ended tells its downstream neighbours, and what became ready is scheduled or settled.

The cost of one end is O(out-degree).  ``empty``, ``skipped`` and ``upstream_failed`` instances are settled in the same
transaction, in cascades of bounded length: what is over the bound gets a due time and is looked at by the next command.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, or_, select, update

from dag.states import TASK_STEPS, TaskState, TaskStep, sources, step
from dag.trigger_rules import Counts, Verdict, judge
from metastore.among import among
from metastore.commands.turn import open_turn, states
from metastore.each import expect
from metastore.models.runs import task_instances

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from metastore.commands.turn import Turn
    from metastore.store import Tx

#: How many instances one command settles at the most.
MOST_SETTLED: Final = 500

_instance = task_instances.c
#: The counter of a downstream that an upstream ending like this raises.
COUNTERS: Final = {
    TaskState.SUCCESS: _instance.n_success,
    TaskState.FAILED: _instance.n_failed,
    TaskState.UPSTREAM_FAILED: _instance.n_upstream_failed,
    TaskState.SKIPPED: _instance.n_skipped,
    TaskState.CANCELLED: _instance.n_cancelled,
}
_SEEN: Final = (
    _instance.id,
    _instance.task_no,
    _instance.task_id,
    _instance.map_index,
    _instance.state,
    _instance.try_number,
    _instance.executor,
    _instance.queue,
    _instance.n_success,
    _instance.n_failed,
    _instance.n_upstream_failed,
    _instance.n_skipped,
    _instance.n_cancelled,
)
_TELL: Final = {
    state: update(task_instances)
    .where(_instance.run == bindparam("of_run"), among(_instance.task_no, "numbers"))
    .values({column: column + bindparam("more")})
    .returning(*_SEEN)
    for state, column in COUNTERS.items()
}
_SCHEDULE: Final = (
    update(task_instances)
    .where(
        among(_instance.id, "ids"),
        # Not in_(): its text depends on how many values there are, so it takes the slow way each time (prepared.py).
        or_(*(_instance.state == state for state in states(sources(TASK_STEPS, TaskStep.SCHEDULE)))),
    )
    .values(state=TaskState.SCHEDULED.value, scheduled_at=bindparam("now"), due_at=None, reason=None, blocked_on=None)
)
_SETTLE: Final = (
    update(task_instances)
    .where(among(_instance.id, "ids"), _instance.state == TaskState.PENDING.value)
    .values(state=bindparam("to"), ended_at=bindparam("now"), due_at=None, reason=bindparam("why"))
)
_SET_DUE: Final = (
    update(task_instances)
    .where(among(_instance.id, "ids"), _instance.state == TaskState.PENDING.value)
    .values(due_at=bindparam("when"))
)
_DUE: Final = (
    select(*_SEEN)
    .where(
        _instance.run == bindparam("run"),
        _instance.due_at <= bindparam("now"),
        or_(_instance.state == TaskState.PENDING.value, _instance.state == TaskState.UP_FOR_RETRY.value),
    )
    .order_by(_instance.due_at, _instance.id)
    .limit(MOST_SETTLED)
)
_REASON: Final = {TaskStep.SUCCEED: None, TaskStep.SKIP: "trigger_rule", TaskStep.FAIL_UPSTREAM: "trigger_rule"}


def propagate(turn: Turn, ended: Iterable[tuple[int, TaskState]]) -> None:
    """Tell the downstream neighbours of what *ended*, and settle or schedule what that makes ready."""
    news = Counter(ended)
    settled = 0
    while news:
        seen = _tell(turn, news)
        news = Counter()
        ready = judged(turn, seen.values())
        schedule(turn, ready[TaskStep.SCHEDULE])
        for taken in (TaskStep.SUCCEED, TaskStep.SKIP, TaskStep.FAIL_UPSTREAM):
            rows = ready[taken]
            if settled + len(rows) > MOST_SETTLED:
                postpone(turn, rows)
                continue
            settled += len(rows)
            news.update(settle_pending(turn, rows, taken))


def _tell(turn: Turn, news: Counter[tuple[int, TaskState]]) -> dict[int, Any]:
    """Raise the counters of the neighbours; return their rows as they are now, by task number."""
    more: dict[TaskState, Counter[int]] = defaultdict(Counter)
    for (number, state), times in news.items():
        for neighbour in turn.task(number).downstream:
            more[state][neighbour] += times
    seen: dict[int, Any] = {}
    for state in sorted(more):
        by_amount: dict[int, list[int]] = defaultdict(list)
        for neighbour, amount in more[state].items():
            by_amount[amount].append(neighbour)
        for amount, numbers in sorted(by_amount.items()):
            values = {"of_run": turn.id, "numbers": sorted(numbers), "more": amount}
            rows = turn.tx.conn.execute(_TELL[state], values).all()
            seen |= {row.task_no: row for row in rows}
    return seen


def judged(turn: Turn, rows: Iterable[Any]) -> dict[TaskStep, list[Any]]:
    """Sort pending rows by what their trigger rule and kind say; rows that wait, or wait no longer, are left out."""
    found: dict[TaskStep, list[Any]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.id):
        if row.state != TaskState.PENDING:
            continue
        task = turn.task(row.task_no)
        counts = Counts(row.n_success, row.n_failed, row.n_upstream_failed, row.n_skipped, row.n_cancelled)
        match judge(task.trigger_rule, len(task.upstream), counts):
            case Verdict.RUN:
                found[TaskStep.SUCCEED if task.kind == "empty" else TaskStep.SCHEDULE].append(row)
            case Verdict.SKIP:
                found[TaskStep.SKIP].append(row)
            case Verdict.UPSTREAM_FAILED:
                found[TaskStep.FAIL_UPSTREAM].append(row)
            case Verdict.WAIT:
                pass
    return found


def schedule(turn: Turn, rows: Sequence[Any], *, actor: str = "scheduler") -> None:
    """Make *rows* ready for a slot."""
    if not rows:
        return
    done = turn.tx.conn.execute(_SCHEDULE, {"ids": [row.id for row in rows], "now": turn.tx.now})
    expect(done.rowcount, len(rows), "schedule")
    for row in rows:
        turn.task_event(row, step(TASK_STEPS, TaskState(row.state), TaskStep.SCHEDULE), actor=actor)
        turn.ready.add((row.executor, row.queue))


def settle_pending(turn: Turn, rows: Sequence[Any], taken: TaskStep) -> list[tuple[int, TaskState]]:
    """End pending *rows* without an attempt; return what to tell their neighbours."""
    if not rows:
        return []
    to = step(TASK_STEPS, TaskState.PENDING, taken)
    values = {"ids": [row.id for row in rows], "to": to, "now": turn.tx.now, "why": _REASON[taken]}
    expect(turn.tx.conn.execute(_SETTLE, values).rowcount, len(rows), f"settle as {to}")
    for row in rows:
        turn.task_event(row, to, actor="scheduler", reason=_REASON[taken])
        turn.count_end(row.task_no, to)
    return [(row.task_no, to) for row in rows]


def postpone(turn: Turn, rows: Sequence[Any]) -> None:
    """Have pending *rows* looked at by the next command."""
    if rows:
        turn.tx.conn.execute(_SET_DUE, {"ids": [row.id for row in rows], "when": turn.tx.now})
        turn.tx.topics.add("due")


def look_at_due(turn: Turn) -> bool:
    """Look at the instances of the run whose time has come; return whether there may be more of them."""
    rows = turn.tx.conn.execute(_DUE, {"run": turn.id, "now": turn.tx.now}).all()
    schedule(turn, [row for row in rows if row.state == TaskState.UP_FOR_RETRY])
    ready = judged(turn, rows)
    schedule(turn, ready[TaskStep.SCHEDULE])
    news: list[tuple[int, TaskState]] = []
    for taken in (TaskStep.SUCCEED, TaskStep.SKIP, TaskStep.FAIL_UPSTREAM):
        news += settle_pending(turn, ready[taken], taken)
    waiting = {row.id for row in rows if row.state == TaskState.PENDING}
    waiting -= {row.id for found in ready.values() for row in found}
    forget_due(turn, waiting)
    propagate(turn, news)
    return len(rows) == MOST_SETTLED


def forget_due(turn: Turn, ids: Iterable[int]) -> None:
    """Take the due time off instances that turned out to wait for their upstreams."""
    if waiting := sorted(ids):
        turn.tx.conn.execute(_SET_DUE, {"ids": waiting, "when": None})


def advance_run(tx: Tx, run: int) -> bool:
    """Look at what is due in a run: retries whose time has come, cascades that were cut short.

    Returns whether there may be more to do.
    """
    turn = open_turn(tx, run)
    if turn is None or turn.state != "running":
        return False
    more = look_at_due(turn)
    if more:
        tx.topics.add("due")
    turn.close()
    return more
