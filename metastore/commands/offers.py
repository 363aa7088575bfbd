"""Offers: attempts that wait for their executor, and when they are looked at again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Integer, and_, bindparam, or_, update

from dag.states import AttemptState
from metastore.models.attempts import attempts
from metastore.models.base import Instant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from metastore.store import Tx

_attempt = attempts.c
_DEFER: Final = (
    update(attempts)
    .where(_attempt.id == bindparam("attempt_id"), _attempt.state == AttemptState.QUEUED.value)
    .values(launch_after=bindparam("after"), deferred_reason=bindparam("why"))
)


def defer_attempt(tx: Tx, attempt_id: str, reason: str, retry_after: timedelta) -> bool:
    """Note that an executor cannot take the attempt now, and why; never a failure.  Returns whether it still waits."""
    values = {"attempt_id": attempt_id, "after": tx.now + retry_after, "why": reason}
    return tx.conn.execute(_DEFER, values).rowcount == 1


_TAKE_UP: Final = (
    update(attempts)
    .where(
        _attempt.id == bindparam("attempt_id"),
        _attempt.state == AttemptState.QUEUED.value,
        _attempt.placed_on.is_(None),
        or_(
            _attempt.launch_after <= bindparam("now", type_=Instant),
            and_(bindparam("eager", type_=Integer) == 1, _attempt.deferred_reason.is_not(None)),
        ),
    )
    .values(launch_after=bindparam("after"), deferred_reason=None, relaunches=_attempt.relaunches + bindparam("again"))
)


def take_up(tx: Tx, offers: Mapping[str, tuple[timedelta, int]], *, eager: bool = False) -> list[str]:
    """Have each offer looked at again after its delay; return those that are the caller's to act on.

    Of several schedulers that look at the same offer at once one gets it.  The number is added to how often it was
    offered again.  With *eager*, what its executor put off is not waited for any more.
    """
    mine = []
    for attempt_id, (delay, again) in sorted(offers.items()):
        values = {
            "attempt_id": attempt_id,
            "now": tx.now,
            "after": tx.now + delay,
            "again": again,
            "eager": int(eager),
        }
        if tx.conn.execute(_TAKE_UP, values).rowcount == 1:
            mine.append(attempt_id)
    return mine
