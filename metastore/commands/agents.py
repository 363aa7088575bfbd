"""Agents: who holds attempts, with how many slots, and until when.

The lease of a scheduler's own agent is renewed by that scheduler (on Postgres; on SQLite there is one service and no
lease: a laptop may sleep), the lease of a worker by its heartbeats through the API.  When it runs out in database time,
any scheduler may give the attempts up: they have been killed by then, by the holder's own clock.  A worker's lease does
not run out for time in which no API was there to renew it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Boolean, and_, bindparam, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from metastore.commands.admission import Outlet
from metastore.commands.leases import RENEWED, not_before, renewed
from metastore.commands.workers import HOLDS, set_capacities
from metastore.models.agents import agents
from metastore.models.base import Instant
from metastore.models.limits import limits
from metastore.models.service import presence

if TYPE_CHECKING:
    from metastore.store import Tx

_INSERT: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def _upsert(dialect: str, table: Any, key: str, changing: tuple[str, ...], where: Any = None) -> Any:
    statement = _INSERT[dialect](table)
    new = statement.excluded
    values = {name: getattr(new, name) for name in changing}
    return statement.on_conflict_do_update(index_elements=[key], set_=values, where=where)


_REGISTER: Final = {
    dialect: _upsert(
        dialect,
        agents,
        "agent_id",
        ("host", "executors", "seen_at", "lease_until", "draining"),
        # Two copies of a home whose agent nobody knows yet: one of them has it, by the time of the other one's INSERT.
        or_(
            agents.c.host == bindparam("here"),
            agents.c.lease_until.is_(None),
            agents.c.lease_until <= bindparam("now", type_=Instant),
            bindparam("anyway", type_=Boolean),
        ),
    )
    for dialect in _INSERT
}
_HOLDER: Final = (
    select(agents.c.host, agents.c.lease_until).where(agents.c.agent_id == bindparam("agent")).with_for_update()
)
_SET_CAPACITY: Final = {dialect: _upsert(dialect, limits, "key", ("capacity",)) for dialect in _INSERT}
_BEAT: Final = (
    update(agents)
    .where(agents.c.agent_id == bindparam("agent"), agents.c.host == bindparam("on"))
    .values(seen_at=bindparam("now"), lease_until=RENEWED)
)
_RELEASE: Final = (
    update(agents)
    .where(agents.c.agent_id == bindparam("agent"), agents.c.host == bindparam("on"), ~HOLDS)
    .values(lease_until=None, draining=True)
)
#: How long an API may be silent that is still being served, at the most.
_SILENCE: Final = timedelta(seconds=15)

_SERVED: Final = (
    select(presence.c.part)
    .where(
        presence.c.part == "api",
        presence.c.seen_at > bindparam("heard", type_=Instant),
        presence.c.since <= bindparam("amnesty", type_=Instant),
    )
    .exists()
)
_RAN_OUT: Final = and_(agents.c.lease_until < bindparam("now", type_=Instant), or_(agents.c.kind == "agent", _SERVED))
# What was on its way to it when it was given up: an admission, a start.  It comes back for that, or it does not.
_HOLDS_ALL_THE_SAME: Final = and_(
    agents.c.lease_until.is_(None),
    or_(agents.c.kind != "agent", agents.c.draining),
    HOLDS,
)
_IS_OVER: Final = or_(_RAN_OUT, _HOLDS_ALL_THE_SAME)
_EXPIRED: Final = (
    select(agents.c.agent_id).where(_IS_OVER).order_by(agents.c.agent_id).with_for_update(skip_locked=True)
)
_GIVE_UP: Final = (
    update(agents)
    .where(agents.c.agent_id == bindparam("agent"), _RAN_OUT)
    .values(lease_until=None, draining=or_(agents.c.kind == "agent", agents.c.draining))
)


def register_agent(
    tx: Tx, agent_id: str, *, host: str, executors: list[dict[str, Any]], lease: timedelta | None
) -> str | None:
    """Make an agent known with its executors (``name``, ``slots``, ``status``, ``detail``) and their slots.

    Return None, or the name of the other host that holds this agent's lease: one home is in two places then, a copy of
    it was made, and each of the two would take what the other one runs for dead.
    """
    known = tx.conn.execute(_HOLDER, {"agent": agent_id}).first() if lease is not None else None
    before = None if known is None else known.lease_until
    # An agent may live on from before a restart, and goes by what it heard then.
    until = None if lease is None else not_before(before, tx.now + lease)
    row = {
        "agent_id": agent_id,
        "host": host,
        "executors": executors,
        "seen_at": tx.now,
        "lease_until": until,
        "draining": False,
    }
    row |= {"here": host, "now": tx.now, "anyway": lease is None}
    if tx.conn.execute(_REGISTER[tx.conn.dialect.name], row).rowcount != 1:
        return str(tx.conn.execute(_HOLDER, {"agent": agent_id}).one().host)
    for executor in executors:
        if executor.get("by_queue"):
            continue  # its live workers say how much it takes
        key = Outlet(executor["name"], agent_id if executor["placed"] else None).slots_key
        tx.conn.execute(_SET_CAPACITY[tx.conn.dialect.name], {"key": key, "capacity": executor["slots"], "used": 0})
    tx.topics.add("ready")
    return None


def beat(tx: Tx, agent_id: str, host: str, lease: timedelta) -> bool:
    """Renew an agent's lease; return whether it is known, and this host's."""
    return tx.conn.execute(_BEAT, {"agent": agent_id, "on": host} | renewed(tx, lease)).rowcount == 1


def release_agent(tx: Tx, agent_id: str, host: str) -> None:
    """End the lease of an agent that has stopped and holds nothing: its home may go on under another host's name."""
    tx.conn.execute(_RELEASE, {"agent": agent_id, "on": host})


def is_held(tx: Tx, agent_id: str, host: str) -> bool:
    """Whether an agent is this host's, and stays so until the commit."""
    known = tx.conn.execute(_HOLDER, {"agent": agent_id}).first()
    return known is not None and bool(known.host == host)


def silence(lease: timedelta) -> timedelta:
    """Return how long an API may be silent that is still being served: an outage is noticed before leases run out."""
    return min(_SILENCE, lease / 2)


def told(lease: timedelta) -> timedelta:
    """Return how long a supervisor lets its tasks live that hears nothing: less than its *lease*.

    They are dead by the time others may have them: what lies between is for clocks that run differently, and for kills.
    """
    return lease - max(timedelta(seconds=1), lease / 10)


def _at(tx: Tx, lease: timedelta | None) -> dict[str, Any]:
    quiet = _SILENCE if lease is None else silence(lease)
    return {"now": tx.now, "heard": tx.now - quiet, "amnesty": tx.now - (lease or timedelta(0))}


def expired_agents(tx: Tx, lease: timedelta) -> list[str]:
    """Return the agents whose lease has run out; their attempts are the caller's to end as lost.

    An agent is returned again until it has no active attempts: the caller may die on the way, and so may a transaction
    that was on its way when the agent was given up place one there.
    """
    return [row.agent_id for row in tx.conn.execute(_EXPIRED, _at(tx, lease))]


def forget_lease(tx: Tx, agent_id: str, lease: timedelta) -> None:
    """Note that nothing of an expired agent is left to give up; a worker's queues have its slots no more."""
    if tx.conn.execute(_GIVE_UP, {"agent": agent_id} | _at(tx, lease)).rowcount != 1:
        return
    known = tx.conn.execute(_SERVES, {"agent": agent_id}).first()
    if known is not None and known.kind == "worker":
        set_capacities(tx, known.executor, known.queues)
    elif known is not None and known.kind == "attempt":
        tx.conn.execute(_FORGET, {"agent": agent_id})


_STILL_EXPIRED: Final = (
    select(agents.c.agent_id).where(agents.c.agent_id == bindparam("agent"), _IS_OVER).with_for_update()
)
_SERVES: Final = select(agents.c.kind, agents.c.executor, agents.c.queues).where(
    agents.c.agent_id == bindparam("agent")
)
_FORGET: Final = delete(agents).where(agents.c.agent_id == bindparam("agent"))


def is_expired(tx: Tx, agent_id: str, lease: timedelta | None) -> bool:
    """Whether an agent's lease is over, and stays so until the commit."""
    return tx.conn.execute(_STILL_EXPIRED, {"agent": agent_id} | _at(tx, lease)).first() is not None
