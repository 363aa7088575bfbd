"""Supervisors that are registered nowhere: each has one attempt, and a lease of its own for it."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, insert, select, update

from dag.errors import BadCredential, Gone, NotFound, RunyardError
from dag.states import AttemptState
from metastore.among import among
from metastore.commands.leases import RENEWED, renewed
from metastore.models.agents import agents
from metastore.models.attempts import attempts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from metastore.store import Tx

_HOLD_ALONE: Final = insert(agents).inline()
_LET_GO: Final = delete(agents).where(agents.c.agent_id == bindparam("agent"))
_HELD_ALONE: Final = select(
    attempts.c.id, attempts.c.state, attempts.c.boot_id, attempts.c.key_hash, attempts.c.stop_reason
).where(among(attempts.c.id, "attempts"))
_BEAT_ALONE: Final = (
    update(agents).where(among(agents.c.agent_id, "places")).values(seen_at=bindparam("now"), lease_until=RENEWED)
)


@dataclass(frozen=True, slots=True)
class LoneBeat:
    """What the supervisor of one attempt says with a heartbeat."""

    attempt_id: str
    key_hash: str
    boot_id: str


def lone(attempt_id: str) -> str:
    """Return where an attempt is placed whose supervisor is registered nowhere."""
    return f"attempt:{attempt_id}"


def hold_alone(tx: Tx, attempt_id: str, executor: str, boot_id: str, lease: timedelta) -> None:
    """Give the supervisor of one attempt a lease."""
    row = {
        "agent_id": lone(attempt_id),
        "kind": "attempt",
        "host": "",
        "executors": [],
        "seen_at": tx.now,
        "lease_until": tx.now + lease,
        "executor": executor,
        "boot_id": boot_id,
        "draining": False,
        "drain_asked": False,
    }
    tx.conn.execute(_HOLD_ALONE, [row])


def beat_attempt(tx: Tx, attempt_id: str, *, key_hash: str, boot_id: str, lease: timedelta) -> str | None:
    """Renew the lease of a supervisor of one attempt; return why it is asked to stop, if it is."""
    (found,) = beat_attempts(tx, [LoneBeat(attempt_id, key_hash, boot_id)], lease)
    if isinstance(found, RunyardError):
        raise found
    return found


def beat_attempts(tx: Tx, beats: Sequence[LoneBeat], lease: timedelta) -> list[str | RunyardError | None]:
    """Do the same for many of them with two statements; for each, what it is asked or what is wrong with it."""
    rows = {row.id: row for row in tx.conn.execute(_HELD_ALONE, {"attempts": [beat.attempt_id for beat in beats]})}
    found = [_heard(rows.get(beat.attempt_id), beat) for beat in beats]
    places = [
        lone(beat.attempt_id) for beat, one in zip(beats, found, strict=True) if not isinstance(one, RunyardError)
    ]
    if places:
        tx.conn.execute(_BEAT_ALONE, {"places": places} | renewed(tx, lease))
    return found


def _heard(row: Any, beat: LoneBeat) -> str | RunyardError | None:
    if row is None:
        return NotFound("attempt", beat.attempt_id)
    if row.key_hash is None or not hmac.compare_digest(row.key_hash, beat.key_hash):
        return BadCredential(f"This is not the key of the attempt {beat.attempt_id}.")
    if row.state != AttemptState.RUNNING.value or row.boot_id != beat.boot_id:
        detail = f"The attempt {beat.attempt_id} is {row.state}: it is not this supervisor's any more."
        return Gone("attempt_gone", detail)
    reason: str | None = row.stop_reason
    return reason


def let_go(tx: Tx, attempt_id: str) -> None:
    """Forget the supervisor of an attempt that has ended."""
    tx.conn.execute(_LET_GO, {"agent": lone(attempt_id)})
