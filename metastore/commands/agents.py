"""Agents: who holds local attempts, with how many slots, and until when.

On Postgres an agent's scheduler renews a lease in database time; when it runs out, any other scheduler may give its
attempts up (the agent has killed them by then, by its own clock).  On SQLite there is one service and no lease: a
laptop may sleep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from metastore.commands.admission import Outlet
from metastore.models.agents import agents
from metastore.models.limits import limits

if TYPE_CHECKING:
    from datetime import timedelta

    from metastore.store import Tx

_INSERT: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def _upsert(dialect: str, table: Any, key: str, changing: tuple[str, ...]) -> Any:
    statement = _INSERT[dialect](table)
    new = statement.excluded
    return statement.on_conflict_do_update(index_elements=[key], set_={name: getattr(new, name) for name in changing})


_REGISTER: Final = {
    dialect: _upsert(dialect, agents, "agent_id", ("host", "executors", "seen_at", "lease_until"))
    for dialect in _INSERT
}
_SET_CAPACITY: Final = {dialect: _upsert(dialect, limits, "key", ("capacity",)) for dialect in _INSERT}
_BEAT: Final = (
    update(agents)
    .where(agents.c.agent_id == bindparam("agent"))
    .values(seen_at=bindparam("now"), lease_until=bindparam("until"))
)
_EXPIRED: Final = (
    select(agents.c.agent_id)
    .where(agents.c.lease_until < bindparam("now"))
    .order_by(agents.c.agent_id)
    .with_for_update(skip_locked=True)
)
_GIVE_UP: Final = (
    update(agents)
    .where(agents.c.agent_id == bindparam("agent"), agents.c.lease_until < bindparam("now"))
    .values(lease_until=None)
)


def register_agent(
    tx: Tx, agent_id: str, *, host: str, executors: list[dict[str, Any]], lease: timedelta | None
) -> None:
    """Make an agent known with its executors (``name``, ``slots``, ``status``, ``detail``) and their slots."""
    row = {
        "agent_id": agent_id,
        "host": host,
        "executors": executors,
        "seen_at": tx.now,
        "lease_until": None if lease is None else tx.now + lease,
    }
    tx.conn.execute(_REGISTER[tx.conn.dialect.name], row)
    for executor in executors:
        key = Outlet(executor["name"], agent_id if executor["placed"] else None).slots_key
        tx.conn.execute(_SET_CAPACITY[tx.conn.dialect.name], {"key": key, "capacity": executor["slots"], "used": 0})
    tx.topics.add("ready")


def beat(tx: Tx, agent_id: str, lease: timedelta) -> bool:
    """Renew an agent's lease; return whether it is known."""
    values = {"agent": agent_id, "now": tx.now, "until": tx.now + lease}
    return tx.conn.execute(_BEAT, values).rowcount == 1


def expired_agents(tx: Tx) -> list[str]:
    """Return the agents whose lease has run out; their attempts are the caller's to end as lost.

    An agent is returned again until it has no active attempts: the caller may die on the way.
    """
    return [row.agent_id for row in tx.conn.execute(_EXPIRED, {"now": tx.now})]


def forget_lease(tx: Tx, agent_id: str) -> None:
    """Note that nothing of an expired agent is left to give up."""
    tx.conn.execute(_GIVE_UP, {"agent": agent_id, "now": tx.now})


_STILL_EXPIRED: Final = (
    select(agents.c.agent_id)
    .where(agents.c.agent_id == bindparam("agent"), agents.c.lease_until < bindparam("now"))
    .with_for_update()
)


def is_expired(tx: Tx, agent_id: str) -> bool:
    """Whether an agent's lease is over, and stays so until the commit."""
    return tx.conn.execute(_STILL_EXPIRED, {"agent": agent_id, "now": tx.now}).first() is not None
