"""What the database of a live metastore says of attempts, and how it is told that one is to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dag.states import AttemptState, RunStep, TaskStep
from metastore.commands.stopping import fail_fast, stop_everything
from metastore.commands.turn import open_by_attempts
from metastore.queries import attempts, events, tasks, work

if TYPE_CHECKING:
    from metastore.records import AttemptRecord
    from metastore.store import Tx
    from worker.protocol import Finish, StopReason

_MOST: Final = 1_000


def stop(tx: Tx, attempt_id: str, reason: StopReason) -> None:
    """Stop the run of an attempt as the scheduler does for *reason*."""
    (turn,) = open_by_attempts(tx, [attempt_id]).values()
    if reason == "fail_fast":
        fail_fast(turn)
    else:
        turn.take(RunStep.CANCEL, actor="scheduler", reason="run_timeout")
        stop_everything(turn, TaskStep.SKIP, reason, actor="scheduler")
    turn.close("scheduler")


def facts_of(conn: Any, attempt_id: str) -> tuple[AttemptRecord, str | None]:
    record = attempts.by_id(conn, attempt_id)
    assert record is not None  # noqa: S101  # the kit has made it
    ended_well = record.state == AttemptState.SUCCESS.value
    return record, tasks.output(conn, record.instance) if ended_well else None


def steps_of(conn: Any, run: int, attempt_id: str) -> list[str]:
    """Return where an attempt went: ``queued``, ``running``, and ``end`` for every end that was accepted."""
    found = [one.to_state for one in events.of_run(conn, run, limit=_MOST) if one.attempt_id == attempt_id]
    return [to if to in ("queued", "running") else "end" for to in found if to is not None and to != "cancelling"]


def state_of(record: AttemptRecord) -> str:
    return "drained" if record.cause == "drained" else record.state


def finish_of(record: AttemptRecord, output: str | None) -> Finish:
    return {
        "type": "finish",
        "attempt_id": record.id,
        "boot_id": record.boot_id or "",
        "outcome": state_of(record),  # type: ignore[typeddict-item]  # a supervisor's end is one of them
        "exit_code": record.exit_code,
        "signal": record.signal,
        "error": record.error or "",
        "output": output,
        "log_size": record.log_size or 0,
        "log_dropped": record.log_dropped or 0,
        "started_at": 0.0 if record.started_at is None else record.started_at.timestamp(),
        "ended_at": 0.0 if record.ended_at is None else record.ended_at.timestamp(),
        "more": False,
    }


def wrong_books(conn: Any) -> list[str]:
    return work.doubtful_limits(conn, work.limit_keys(conn, "", _MOST))
