"""Bugs in starts, ends, graphs and runs: what the real SQL does with them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from dag.outcomes import Ended
from metastore.commands import attempts, clear, stopping
from metastore.commands.turn import release
from metastore.models.attempts import attempts as attempts_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.planting import Planter


def a_start_compares_with_nothing(planter: Planter) -> None:
    """Whoever asks for the start of a running attempt gets it: a dropped compare-and-set."""
    planter.rewrite(
        "metastore.commands.attempts:_start",
        ("if row.placed_on not in (None, placed_on):", "if False:"),
        ("if state is AttemptState.RUNNING and row.boot_id == call.boot_id:", "if state is AttemptState.RUNNING:"),
        ("if row.key_hash != call.key_hash:", "if False:"),
    )


def a_cancel_misses_what_is_queued(planter: Planter) -> None:
    """A cancel ends what waits and stops what runs, and forgets what lies with an executor."""
    planter.replace("metastore.commands.stopping:_OPEN", tuple(state for state in stopping._OPEN if state != "queued"))
    planter.rewrite(
        "metastore.commands.stopping:stop_everything",
        (
            '{"run": turn.id}).all()',
            '{"run": turn.id}).all()\n    rows = [row for row in rows if row.state != "queued"]',
        ),
    )


def a_stop_is_told_to_nobody(planter: Planter) -> None:
    """Who runs something that is to stop is never told."""
    planter.rewrite("metastore.queries.work:stopping", ("return [", "return [][:0] and ["))
    planter.rewrite("metastore.queries.workers:stopping_on", ("return [", "return [][:0] and ["))
    planter.rewrite("scheduler.lost:reconcile", ("elif placement.stop_reason is not None and", "elif False and"))


def a_stale_end_is_taken_for_the_current_one(planter: Planter) -> None:
    """An end is applied to its instance, whichever of the attempts it is of: no fence."""

    def steal(tx: Any, end: Any, row: Any, outlets: Any) -> Any:
        current = tx.conn.execute(
            select(attempts_table.c.id).where(attempts_table.c.instance == row.id, attempts_table.c.state == "running")
        ).scalar()
        if current is None or end.ended is not Ended.SUCCESS:
            return attempts.EndNoted(accepted=False)
        return attempts.end_attempt(tx, replace(end, attempt_id=current, boot_id=None, key_hash=None), outlets)

    planter.rewrite(
        "metastore.commands.attempts:_end",
        (
            "return EndNoted(accepted=told, executor=row.executor)",
            "return EndNoted(accepted=True, executor=row.executor) if told else steal(turn.tx, end, row, call.outlets)",
        ),
        steal=steal,
    )


def an_end_that_is_told_again_frees_its_slot_again(planter: Planter) -> None:
    """A repeated finish is counted: its slot is given back once more."""

    def free(tx: Any, row: Any) -> None:
        release(tx, Counter({row.slots: 1}))

    planter.rewrite(
        "metastore.commands.attempts:_end",
        (
            "return EndNoted(accepted=told, executor=row.executor)",
            (
                "if row.boot_id == end.boot_id:\n"
                "            free(turn.tx, row)\n"
                "        return EndNoted(accepted=told, executor=row.executor)"
            ),
        ),
        free=free,
    )


def retries_are_off_by_one(planter: Planter) -> None:
    """A task is tried once more than it may."""
    planter.rewrite("dag.outcomes:settle", ("failures + 1 <= retries", "failures <= retries"))


def losses_are_charged_to_the_user(planter: Planter) -> None:
    """What the infrastructure loses is paid from the budget of the user's code."""
    planter.rewrite(
        "dag.outcomes:settle",
        ('TaskStep.REQUEUE if losses == 0 else TaskStep.RETRY, "loss", "lost"', 'TaskStep.REQUEUE, "failure", "lost"'),
    )


def losses_are_not_counted(planter: Planter) -> None:
    """What the infrastructure loses costs nothing: a task that takes its worker with it is started for ever."""
    planter.rewrite(
        "dag.outcomes:settle",
        ('TaskStep.REQUEUE if losses == 0 else TaskStep.RETRY, "loss", "lost"', 'TaskStep.REQUEUE, "none", "lost"'),
    )


def a_retry_is_due_at_once(planter: Planter) -> None:
    """The pause before the next try is not kept."""
    planter.rewrite(
        "metastore.commands.moves:_due", ("return tx.now + delay_before(", "return tx.now + 0 * delay_before(")
    )


def a_clear_begins_its_fences_anew(planter: Planter) -> None:
    """The number of tries is reset by a clear: an old attempt has the fence of a new one."""
    planter.replace("metastore.commands.clear:_CLEAR", clear._CLEAR.values(try_number=0))


def a_clear_starts_beside_a_cancel(planter: Planter) -> None:
    """What is cleared in a run that is being cancelled starts again."""
    planter.rewrite("metastore.commands.clear:clear_run", ("if turn.state is RunState.CANCELLING:", "if False:"))
    planter.rewrite("metastore.commands.clear:_clear", ("elif turn.state is RunState.RUNNING:", "else:"))


def a_run_that_waits_is_cleared_into_running(planter: Planter) -> None:
    """What is cleared in a run that is queued starts before its run has a slot."""
    planter.rewrite("metastore.commands.clear:_clear", ("elif turn.state is RunState.RUNNING:", "else:"))


def rules_look_at_what_has_not_ended(planter: Planter) -> None:
    """A trigger rule is judged by the first upstream that ends, as if it were the last."""
    planter.rewrite("dag.trigger_rules:judge", ("if counts.ended < total:", "if counts.ended < 1:"))


def skipped_counts_as_success(planter: Planter) -> None:
    """A skipped upstream is counted among those that succeeded."""
    planter.rewrite(
        "dag.trigger_rules:judge", ("if counts.success else _NONE", "if counts.success or counts.skipped else _NONE")
    )


def runs_end_with_something_open(planter: Planter) -> None:
    """A run is over when one instance is left: an off-by-one in what decides its end."""
    planter.rewrite("metastore.commands.turn:Turn.end_if_done", ("or self.unfinished or", "or self.unfinished > 1 or"))


def an_allowed_failure_fails_its_run(planter: Planter) -> None:
    """The run's verdict does not know allow_failure."""
    planter.rewrite("metastore.commands.turn:Turn.count_end", (" and not self.task(number).allow_failure", ""))


def a_run_starts_before_its_time(planter: Planter) -> None:
    """What is to run later runs now: nobody compares the time."""
    planter.rewrite("metastore.commands.materialise:start_run", (" or turn.row.run_after > tx.now", ""))
    planter.rewrite(
        "metastore.queries.work:startable_runs", ("found: list[", "now = now.replace(year=2100)\n    found: list[")
    )


ALL: Final[list[Callable[[Planter], None]]] = [
    a_start_compares_with_nothing,
    a_cancel_misses_what_is_queued,
    a_stop_is_told_to_nobody,
    a_stale_end_is_taken_for_the_current_one,
    an_end_that_is_told_again_frees_its_slot_again,
    retries_are_off_by_one,
    losses_are_charged_to_the_user,
    losses_are_not_counted,
    a_retry_is_due_at_once,
    a_clear_begins_its_fences_anew,
    a_clear_starts_beside_a_cancel,
    a_run_that_waits_is_cleared_into_running,
    rules_look_at_what_has_not_ended,
    skipped_counts_as_success,
    runs_end_with_something_open,
    an_allowed_failure_fails_its_run,
    a_run_starts_before_its_time,
]
