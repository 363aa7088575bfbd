"""Asking for executors: what agents have announced, and how much of it is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select

from metastore.models.agents import agents
from metastore.models.limits import limits
from metastore.records import ExecutorRecord

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: Agents are hosts: there are never many.
_AGENTS: Final = select(agents).where(agents.c.kind == "agent").order_by(agents.c.agent_id).limit(bindparam("most"))
_LIMITS: Final = select(limits.c.key, limits.c.capacity, limits.c.used).where(
    limits.c.key.in_(bindparam("keys", expanding=True))
)


def every(conn: Connection, *, limit: int = 1000) -> list[ExecutorRecord]:
    """Return the executors of every agent."""
    hosts = conn.execute(_AGENTS, {"most": limit}).all()
    announced = [(host, executor, _slots_key(host, executor)) for host in hosts for executor in host.executors]
    rows = conn.execute(_LIMITS, {"keys": [key for _, _, key in announced]})
    slots = {key: (capacity, used) for key, capacity, used in rows}
    return sorted(
        (_record(host, executor, slots.get(key, (executor.get("slots"), 0))) for host, executor, key in announced),
        key=lambda record: (record.name, record.agent_id),
    )


def _slots_key(host: Any, executor: dict[str, Any]) -> str:
    name = f"slots:{executor['name']}"
    return f"{name}@{host.agent_id}" if executor.get("placed") else name


def _record(host: Any, executor: dict[str, Any], slots: tuple[int | None, int]) -> ExecutorRecord:
    capacity, used = slots
    return ExecutorRecord(
        name=executor["name"],
        agent_id=host.agent_id,
        host=host.host,
        placed=bool(executor.get("placed")),
        by_queue=bool(executor.get("by_queue")),
        slots=capacity,
        used=used,
        status=executor.get("status", ""),
        detail=executor.get("detail", ""),
        seen_at=host.seen_at,
        lease_until=host.lease_until,
    )
