"""Asking about workers: what they must be told, what they may do, and how they and their queues are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from sqlalchemy import bindparam, func, select, text

from metastore.among import among
from metastore.models.agents import agents
from metastore.models.attempts import attempts
from metastore.models.limits import limits, queues_prefix
from metastore.models.runs import task_instances

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

_attempt = attempts.c
_instance = task_instances.c
_agent = agents.c


@dataclass(frozen=True, slots=True)
class Directive:
    """What a worker must be told about one of its attempts: stop it."""

    worker_id: str
    attempt_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """What is asked of an attempt before its supervisor may do something."""

    id: str
    state: str
    key_hash: str | None
    boot_id: str | None
    executor: str
    queue: str | None
    placed_on: str | None
    ended_at: datetime | None
    log_size: int | None


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker, or the agent of a scheduler."""

    worker_id: str
    kind: str
    #: ``live``, ``draining``, ``lost`` (its lease ran out while it held something, or without a word), ``gone``.
    state: str
    name: str | None
    host: str
    version: str | None
    pid: int | None
    executor: str | None
    queues: list[str]
    slots: int | None
    running: int
    #: The active attempts that it holds.
    attempts: list[str]
    registered_at: datetime | None
    seen_at: datetime
    lease_until: datetime | None


@dataclass(frozen=True, slots=True)
class QueueRecord:
    """A queue of an executor, and what waits in it."""

    executor: str
    queue: str
    #: Live workers that serve it, and their slots.
    workers: int
    slots: int
    #: Instances that wait for a worker, and since when the first one does.
    ready: int
    oldest_ready_at: datetime | None
    #: Attempts that were offered and not taken yet, and those that run.
    queued: int
    running: int


_STOPPING_ON: Final = (
    select(_attempt.placed_on, _attempt.id, _attempt.stop_reason)
    .where(
        text("attempts.state = 'running' AND attempts.stop_reason IS NOT NULL"), among(_attempt.placed_on, "workers")
    )
    .order_by(_attempt.id)
)
_ASKED_TO_DRAIN: Final = select(_agent.agent_id).where(among(_agent.agent_id, "workers"), _agent.drain_asked.is_(True))
_ATTEMPT: Final = select(
    _attempt.id, _attempt.state, _attempt.key_hash, _attempt.boot_id, _attempt.executor, _attempt.queue,
    _attempt.placed_on, _attempt.ended_at, _attempt.log_size,
).where(_attempt.id == bindparam("attempt_id"))  # fmt: skip
_WORKERS: Final = (
    select(agents)
    .where(_agent.kind != "attempt", _agent.agent_id.not_like("scheduler:%"), _agent.agent_id > bindparam("after"))
    .order_by(_agent.agent_id)
    .limit(bindparam("most"))
)
_WORKER: Final = select(agents).where(_agent.kind != "attempt", _agent.agent_id == bindparam("worker"))
_HELD: Final = (
    select(_attempt.placed_on, _attempt.id)
    .where(text("attempts.state IN ('queued', 'running')"), among(_attempt.placed_on, "workers"))
    .order_by(_attempt.id)
)
_LIVE: Final = select(_agent.executor, _agent.queues, _agent.slots).where(
    _agent.kind == "worker", _agent.lease_until > bindparam("now", type_=_agent.lease_until.type),
    _agent.draining.is_(False),
)  # fmt: skip
_WAITING: Final = (
    select(
        _instance.executor,
        _instance.queue,
        func.count().label("ready"),
        func.min(_instance.scheduled_at).label("since"),
    )
    .where(
        text("task_instances.state = 'scheduled' AND task_instances.blocked_on IS NULL"),
        among(_instance.executor, "executors"),
    )
    .group_by(_instance.executor, _instance.queue)
)
_ACTIVE: Final = (
    select(_attempt.executor, _attempt.queue, _attempt.state, func.count().label("number"))
    .where(text("attempts.state IN ('queued', 'running')"), _attempt.queue.is_not(None))
    .group_by(_attempt.executor, _attempt.queue, _attempt.state)
)
#: Agents are hosts with a scheduler: there are never many.
_ANNOUNCED: Final = select(_agent.executors).where(_agent.kind == "agent").limit(1_000)
_SERVED: Final = select(_agent.executor).where(_agent.kind == "worker").distinct()
_ROOM: Final = select(limits.c.key, limits.c.capacity, limits.c.used).where(among(limits.c.key, "keys"))
_QUEUE_LIMITS: Final = select(limits.c.key).where(limits.c.queue_of.is_not(None))


def stopping_on(conn: Connection, workers: Sequence[str]) -> list[Directive]:
    """Return the running attempts of *workers* that were asked to stop."""
    rows = conn.execute(_STOPPING_ON, {"workers": list(workers)})
    return [Directive(row.placed_on, row.id, row.stop_reason) for row in rows]


def asked_to_drain(conn: Connection, workers: Sequence[str]) -> list[str]:
    """Return which of *workers* somebody asked to drain."""
    return [row.agent_id for row in conn.execute(_ASKED_TO_DRAIN, {"workers": list(workers)})]


def attempt_of(conn: Connection, attempt_id: str) -> AttemptRecord | None:
    """Return what is asked of an attempt, or None."""
    row = conn.execute(_ATTEMPT, {"attempt_id": attempt_id}).first()
    return None if row is None else AttemptRecord(*row)


def workers(conn: Connection, now: datetime, after: str, most: int) -> list[WorkerRecord]:
    """Return workers and agents by id, from *after* on."""
    return _described(conn, now, conn.execute(_WORKERS, {"after": after, "most": most}).all())


def worker(conn: Connection, now: datetime, worker_id: str) -> WorkerRecord | None:
    """Return one worker or agent, or None."""
    found = _described(conn, now, conn.execute(_WORKER, {"worker": worker_id}).all())
    return found[0] if found else None


def _described(conn: Connection, now: datetime, rows: Sequence[Any]) -> list[WorkerRecord]:
    held: dict[str, list[str]] = {row.agent_id: [] for row in rows}
    for row in conn.execute(_HELD, {"workers": list(held)}):
        held[row.placed_on].append(row.id)
    return [
        WorkerRecord(
            worker_id=row.agent_id,
            kind=row.kind,
            state=_state(row, now, holds=bool(held[row.agent_id])),
            name=row.name,
            host=row.host,
            version=row.version,
            pid=row.pid,
            executor=row.executor,
            queues=row.queues or [],
            slots=row.slots,
            running=len(held[row.agent_id]),
            attempts=held[row.agent_id],
            registered_at=row.registered_at,
            seen_at=row.seen_at,
            lease_until=row.lease_until,
        )
        for row in rows
    ]


def _state(row: Any, now: datetime, *, holds: bool) -> str:
    over = row.lease_until is None or row.lease_until <= now
    if row.kind == "agent" and row.lease_until is None:
        return "live"  # SQLite: there is one service, and it is the one that answers
    if row.draining and (over or not holds):
        return "gone"
    if over:
        return "lost"
    return "draining" if row.draining else "live"


def queues(conn: Connection, now: datetime, executors: Sequence[str]) -> list[QueueRecord]:
    """Return the queues of *executors* that have workers, or had some, or that something waits in."""
    live: dict[tuple[str, str], list[int]] = {}
    for row in conn.execute(_LIVE, {"now": now}):
        for queue in row.queues:
            live.setdefault((row.executor, queue), []).append(row.slots)
    known = {_of_key(row.key) for row in conn.execute(_QUEUE_LIMITS)}
    waiting = {
        (row.executor, row.queue): (row.ready, row.since)
        for row in conn.execute(_WAITING, {"executors": list(executors)})
    }
    active = {(row.executor, row.queue, row.state): row.number for row in conn.execute(_ACTIVE)}
    names = known | set(live) | set(waiting) | {(executor, queue) for executor, queue, _ in active}
    return [
        QueueRecord(
            executor=executor,
            queue=queue,
            workers=len(live.get((executor, queue), ())),
            slots=sum(live.get((executor, queue), ())),
            ready=waiting.get((executor, queue), (0, None))[0],
            oldest_ready_at=waiting.get((executor, queue), (0, None))[1],
            queued=active.get((executor, queue, "queued"), 0),
            running=active.get((executor, queue, "running"), 0),
        )
        for executor, queue in sorted(names)
        if executor in executors
    ]


def executors_by_queue(conn: Connection) -> set[str]:
    """Return the executors that hand attempts to workers: as schedulers have announced them, or workers serve them."""
    announced = {one["name"] for row in conn.execute(_ANNOUNCED) for one in row.executors if one.get("by_queue")}
    return announced | set(conn.execute(_SERVED).scalars())


def live_slots(conn: Connection, now: datetime) -> dict[str, tuple[int, int]]:
    """Return, by executor, how many live workers it has, and their slots."""
    found: dict[str, tuple[int, int]] = {}
    for row in conn.execute(_LIVE, {"now": now}):
        number, slots = found.get(row.executor, (0, 0))
        found[row.executor] = (number + 1, slots + row.slots)
    return found


def waiting_for(
    conn: Connection, now: datetime, places: Collection[tuple[str, str]]
) -> dict[tuple[str, str], Literal["no_worker", "queue_full"]]:
    """Return why nothing is taken from some of *places* (executor, queue) at the moment; all are of executors by queue.

    Whether a worker lives is asked of the workers themselves: a limit knows it a little later.
    """
    if not places:
        return {}
    served = {(row.executor, queue) for row in conn.execute(_LIVE, {"now": now}) for queue in row.queues}
    keys = {f"{queues_prefix(executor)}{queue}": (executor, queue) for executor, queue in places}
    full = {keys[row.key] for row in conn.execute(_ROOM, {"keys": list(keys)}) if row.used >= (row.capacity or 0)}
    found: dict[tuple[str, str], Literal["no_worker", "queue_full"]] = dict.fromkeys(full & served, "queue_full")
    return found | dict.fromkeys(set(places) - served, "no_worker")


def _of_key(key: str) -> tuple[str, str]:
    executor, _, queue = key.removeprefix("slots:").partition("/")
    return executor, queue
