"""Workers on other hosts: they register over HTTP, hold a lease that their heartbeats renew, and serve queues.

What the live ones can take is the capacity of a queue: the limit ``slots:<executor>/<queue>``.  One lease covers all
attempts of a worker.  A worker that registers with a new boot_id proves that its earlier processes are dead (it holds
the lock of its home, and tasks die with their supervisor), so what they ran is lost at once.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, delete, func, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from dag.errors import BadCredential, Forbidden, Gone, NotFound, Unavailable
from dag.states import AttemptState
from metastore.commands.leases import RENEWED, not_before, renewed
from metastore.commands.turn import lock_rank
from metastore.models.agents import agents
from metastore.models.attempts import attempts
from metastore.models.base import Instant
from metastore.models.limits import limits, queues_prefix
from metastore.models.service import presence, signing_keys

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from metastore.store import Tx

_INSERT: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

#: A queue is offered this part of its workers' slots more than they have, so that none of them waits for the next
#: offer; at least one.
_AHEAD: Final = 10
#: The number of a process that nobody has counted: later than all.
_LAST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a worker says of itself."""

    worker_id: str
    boot_id: str
    #: SHA-256 of the secret that its heartbeats show.
    token_hash: str
    name: str
    host: str
    pid: int
    version: str
    executor: str
    queues: tuple[str, ...]
    slots: int
    #: How many processes the worker has had, this one included; None where it does not count them.
    boot_number: int | None = None
    #: The API key that it registers with.
    key_id: str | None = None
    #: Attempts of whichever boot whose end it will still tell.
    held: tuple[str, ...] = ()
    #: The queues that its API key is for; None: all.
    allowed: tuple[str, ...] | None = None


_worker = agents.c
_CHANGING: Final = (
    "host", "seen_at", "lease_until", "executor", "queues", "slots", "name", "version", "pid", "boot_id",
    "boot_number", "token_hash", "key_id", "registered_at", "draining", "drain_asked",
)  # fmt: skip


def _register(dialect: str) -> Any:
    statement = _INSERT[dialect](agents)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=["agent_id"],
        set_={name: getattr(new, name) for name in _CHANGING},
        # Again: of two that registered a new worker at once, the second one found no row that it could have read.
        where=and_(
            _worker.kind == "worker",
            func.coalesce(new.boot_number, _LAST) >= func.coalesce(_worker.boot_number, 0),
        ),
    ).returning(_worker.agent_id)


_REGISTER: Final = {dialect: _register(dialect) for dialect in _INSERT}
_KNOWN: Final = select(
    _worker.kind, _worker.boot_id, _worker.token_hash, _worker.executor, _worker.queues, _worker.draining,
    _worker.drain_asked, _worker.lease_until, _worker.boot_number,
).where(_worker.agent_id == bindparam("worker"))  # fmt: skip
_LOCKED: Final = _KNOWN.with_for_update()
#: Agents are hosts with a scheduler: there are never many.
_ANNOUNCED: Final = select(_worker.executors).where(_worker.kind == "agent").limit(1_000)
_OF_EARLIER_BOOTS: Final = (
    select(attempts.c.id)
    .where(
        attempts.c.placed_on == bindparam("worker"),
        attempts.c.state == AttemptState.RUNNING.value,
        attempts.c.boot_id != bindparam("boot"),
    )
    .order_by(attempts.c.id)
)
_BEAT: Final = (
    update(agents)
    .where(_worker.agent_id == bindparam("worker"), _worker.boot_id == bindparam("boot"))
    .values(seen_at=bindparam("now"), lease_until=RENEWED, draining=bindparam("drains"))
)
_LEAVE: Final = (
    update(agents)
    .where(_worker.agent_id == bindparam("worker"), _worker.boot_id == bindparam("boot"))
    .values(seen_at=bindparam("now"), draining=True)
)
_ASK_TO_DRAIN: Final = (
    update(agents).where(_worker.agent_id == bindparam("worker"), _worker.kind == "worker").values(drain_asked=True)
)
#: Whether an agent has attempts that have not ended.
HOLDS: Final = (
    select(attempts.c.id)
    .where(attempts.c.placed_on == _worker.agent_id, text("attempts.state IN ('queued', 'running')"))
    .exists()
)
_FORGET: Final = delete(agents).where(
    _worker.kind == "worker",
    _worker.seen_at < bindparam("before", type_=Instant),
    or_(_worker.lease_until.is_(None), _worker.lease_until < bindparam("now", type_=Instant)),
    ~HOLDS,
)
_SERVING: Final = select(_worker.queues, _worker.slots).where(
    _worker.kind == "worker",
    _worker.executor == bindparam("of"),
    _worker.lease_until > bindparam("now", type_=Instant),
    _worker.draining.is_(False),
)


def _touch(dialect: str) -> Any:
    statement = _INSERT[dialect](limits)
    # A write that changes nothing: it makes the row where there is none, and locks it before the workers are read.
    return statement.on_conflict_do_update(index_elements=["key"], set_={"used": limits.c.used})


_TOUCH: Final = {dialect: _touch(dialect) for dialect in _INSERT}
_SET: Final = update(limits).where(limits.c.key == bindparam("limit_key")).values(capacity=bindparam("most"))


def register_worker(tx: Tx, registration: Registration, lease: timedelta) -> list[str]:
    """Make a worker known, or known again; return the attempts of its dead boots, for the caller to end as lost."""
    known = tx.conn.execute(_LOCKED, {"worker": registration.worker_id}).first()
    if known is not None and known.kind != "worker":
        raise Forbidden("This id is the one of a service's own agent.")
    if known is not None and (registration.boot_number or _LAST) < (known.boot_number or 0):
        # Its sender is dead; the request was held up on its way, by the network or by a database that was away.
        raise _superseded(registration.worker_id)
    others = [] if known is None else _beyond(registration.allowed, known.queues)
    if others and _is_in_use(tx, known, registration):
        raise Forbidden(f"This id is the one of a worker that serves {', '.join(others)}; your key is not for that.")
    if registration.executor in _not_by_queue(tx):
        raise Forbidden(f"The executor {registration.executor!r} has no queues that a worker could serve.")
    before = known.lease_until if known is not None and known.boot_id == registration.boot_id else None
    row = {
        "agent_id": registration.worker_id,
        "kind": "worker",
        "host": registration.host,
        "executors": [],
        "seen_at": tx.now,
        "lease_until": not_before(before, tx.now + lease),
        "executor": registration.executor,
        "queues": list(registration.queues),
        "slots": registration.slots,
        "name": registration.name,
        "version": registration.version,
        "pid": registration.pid,
        "boot_id": registration.boot_id,
        "boot_number": registration.boot_number,
        "token_hash": registration.token_hash,
        "key_id": registration.key_id,
        "registered_at": tx.now,
        "draining": False,
        "drain_asked": False,
    }
    if tx.conn.execute(_REGISTER[tx.conn.dialect.name], row).first() is None:
        raise _superseded(registration.worker_id)
    if known is not None and known.executor != registration.executor:
        set_capacities(tx, known.executor, known.queues)
    queues = {*registration.queues, *(known.queues if known is not None else ())}
    set_capacities(tx, registration.executor, queues)
    found = tx.conn.execute(_OF_EARLIER_BOOTS, {"worker": registration.worker_id, "boot": registration.boot_id})
    return [row.id for row in found if row.id not in set(registration.held)]


def _beyond(allowed: tuple[str, ...] | None, queues: Iterable[str]) -> list[str]:
    return [] if allowed is None else sorted(set(queues) - set(allowed))


def _is_in_use(tx: Tx, known: Any, registration: Registration) -> bool:
    """Whether a registration would take something away from the worker that has its id."""
    lives = known.lease_until is not None and known.lease_until > tx.now and not known.draining
    ids = {"worker": registration.worker_id, "boot": registration.boot_id}
    return lives or tx.conn.execute(_OF_EARLIER_BOOTS, ids).first() is not None


def _not_by_queue(tx: Tx) -> set[str]:
    """Return the executors of schedulers' own hosts: what they run comes from no queue."""
    announced = [one for row in tx.conn.execute(_ANNOUNCED) for one in row.executors]
    return {one["name"] for one in announced} - {one["name"] for one in announced if one.get("by_queue")}


def beat_worker(tx: Tx, worker_id: str, *, token_hash: str, boot_id: str, lease: timedelta, draining: bool) -> bool:
    """Renew the lease of a worker; return whether somebody asked it to drain."""
    known = _known(tx, worker_id, token_hash, boot_id)
    tx.conn.execute(_BEAT, {"worker": worker_id, "boot": boot_id, "drains": draining} | renewed(tx, lease))
    # Not by the time of this transaction alone: it may have waited for whoever counted this worker out meanwhile.
    is_counted = known.lease_until is not None and known.lease_until > tx.now + lease / 2
    if not is_counted or known.draining != draining:
        set_capacities(tx, known.executor, known.queues)
    return bool(known.drain_asked)


def leave_worker(tx: Tx, worker_id: str, *, token_hash: str, boot_id: str) -> None:
    """Note that a worker takes nothing any more; what it still holds keeps its lease."""
    known = _known(tx, worker_id, token_hash, boot_id)
    tx.conn.execute(_LEAVE, {"worker": worker_id, "boot": boot_id, "now": tx.now})
    set_capacities(tx, known.executor, known.queues)


def ask_to_drain(tx: Tx, worker_id: str) -> None:
    """Have a worker told, with its next heartbeat, to take nothing new and to end."""
    if tx.conn.execute(_ASK_TO_DRAIN, {"worker": worker_id}).rowcount != 1:
        raise NotFound("worker", worker_id)
    tx.topics.add("stop")


def forget_workers(tx: Tx, keep: timedelta) -> int:
    """Forget workers that were last heard of more than *keep* ago and hold nothing; return how many."""
    return tx.conn.execute(_FORGET, {"before": tx.now - keep, "now": tx.now}).rowcount


def set_capacities(tx: Tx, executor: str, queues: Iterable[str]) -> None:
    """Count anew what the live workers of an executor can take of each of *queues*."""
    keys = sorted((f"{queues_prefix(executor)}{queue}" for queue in queues), key=lock_rank)
    if not keys:
        return
    for key in keys:
        tx.conn.execute(_TOUCH[tx.conn.dialect.name], {"key": key, "capacity": 0, "used": 0, "queue_of": executor})
    # Read under the locks: of two workers that come or go at once, the second one counts the first one, too.
    live = tx.conn.execute(_SERVING, {"of": executor, "now": tx.now}).all()
    for key in keys:
        queue = key.removeprefix(queues_prefix(executor))
        tx.conn.execute(_SET, {"limit_key": key, "most": credits_of([w.slots for w in live if queue in w.queues])})
    tx.topics.add("ready")


def credits_of(slots: list[int]) -> int:
    """Return how many attempts a queue is given whose workers have *slots*: a few more than fit, none where none is."""
    total = sum(slots)
    return total + max(1, total // _AHEAD) if total else 0


def find_worker(tx: Tx, worker_id: str) -> Any:
    """Return what :func:`require_server` asks for; None where nobody has this id."""
    return tx.conn.execute(_KNOWN, {"worker": worker_id}).first()


def require_server(  # who asks, and for what
    tx: Tx, known: Any, worker_id: str, boot_id: str, *, executor: str, queue: str | None
) -> None:
    """Raise, unless this process is the registered worker, alive, and serves the queue."""
    if known is None or known.kind != "worker":
        raise NotFound("worker", worker_id)
    if known.boot_id != boot_id:
        raise _superseded(worker_id)
    if known.lease_until is None or known.lease_until <= tx.now:
        raise Unavailable("The lease of this worker is over; it has to be heard of first.")
    if known.executor != executor or queue not in known.queues:
        raise Forbidden(f"This worker does not serve the queue {queue!r} of the executor {executor!r}.")


def _known(tx: Tx, worker_id: str, token_hash: str, boot_id: str) -> Any:
    known = tx.conn.execute(_LOCKED, {"worker": worker_id}).first()
    if known is None or known.kind != "worker":
        raise NotFound("worker", worker_id)
    if known.boot_id != boot_id:
        raise _superseded(worker_id)
    if not hmac.compare_digest(known.token_hash, token_hash):
        raise BadCredential(f"This is not the token of the worker {worker_id}.")
    return known


def _superseded(worker_id: str) -> Gone:
    return Gone("worker_superseded", f"Another process has registered as the worker {worker_id} since.")


# What an installation has once

_SECRET: Final = select(signing_keys.c.secret).where(signing_keys.c.purpose == "ticket")
_PRESENT: Final = select(presence.c.since, presence.c.seen_at).where(presence.c.part == "api").with_for_update()
_SEEN: Final = (
    update(presence).where(presence.c.part == "api").values(since=bindparam("from"), seen_at=bindparam("now"))
)


def signing_key(tx: Tx) -> bytes:
    """Return the key that tickets are signed with; the first one who asks makes it."""
    found = tx.conn.execute(_SECRET).scalar()
    if found is None:
        row = {"purpose": "ticket", "secret": tx.entropy.token(32).hex(), "created_at": tx.now}
        tx.conn.execute(_INSERT[tx.conn.dialect.name](signing_keys).on_conflict_do_nothing(), row)
        found = tx.conn.execute(_SECRET).scalar()
    return bytes.fromhex(str(found))


def mark_serving(tx: Tx, gap: timedelta) -> None:
    """Note that the API is being served; after more than *gap* without it, that begins anew.

    No lease of a worker runs out for time in which no API could have renewed it.
    """
    found = tx.conn.execute(_PRESENT).first()
    if found is None:
        row = {"part": "api", "since": tx.now, "seen_at": tx.now}
        tx.conn.execute(_INSERT[tx.conn.dialect.name](presence).on_conflict_do_nothing(), row)
        return
    # Of two processes the later one may have the earlier time: transactions begin before they wait for each other.
    since = found.since if abs(tx.now - found.seen_at) <= gap else tx.now
    tx.conn.execute(_SEEN, {"from": since, "now": tx.now})
