"""The commands about agents, workers, leases and offers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dag.errors import BadCredential, Forbidden, Gone, NotFound, Unavailable
from tests.simulation.model.rows import Agent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from metastore.commands.workers import Registration
    from tests.simulation.model.rows import Attempt, ModelTx

#: How long an API may be silent that is still being served, at the most.
_SILENCE = timedelta(seconds=15)
#: By how much a lease may end later than it is renewed until.
_BELIEVED = timedelta(minutes=5)


def register_agent(
    tx: ModelTx, agent_id: str, *, host: str, executors: list[dict[str, Any]], lease: timedelta | None
) -> str | None:
    known = tx.data.agents.get(agent_id)
    until = None if known is None else known.lease_until
    if lease is not None and known is not None and known.host != host and until is not None and until > tx.now:
        return known.host
    until = None if lease is None else _renewed(known, tx.now + lease)
    if known is None:
        tx.data.agents[agent_id] = Agent(agent_id, "agent", host, tx.now, until, executors)
    else:
        known.host, known.executors, known.seen_at, known.lease_until = host, executors, tx.now, until
        known.draining = False
    for executor in executors:
        if not executor.get("by_queue"):
            at = f"@{agent_id}" if executor["placed"] else ""
            tx.set_capacity(f"slots:{executor['name']}{at}", executor["slots"])
    tx.topics.add("ready")
    return None


def beat(tx: ModelTx, agent_id: str, host: str, lease: timedelta) -> bool:
    known = tx.data.agents.get(agent_id)
    if known is None or known.host != host:
        return False
    known.seen_at, known.lease_until = tx.now, _renewed(known, tx.now + lease)
    return True


def release_agent(tx: ModelTx, agent_id: str, host: str) -> None:
    known = tx.data.agents.get(agent_id)
    held = any(one.placed_on == agent_id for one in tx.data.active.values())
    if known is not None and known.host == host and not held:
        known.lease_until, known.draining = None, True


def _renewed(known: Agent | None, until: datetime) -> datetime:
    before = None if known is None else known.lease_until
    return before if before is not None and until < before < until + _BELIEVED else until


def _is_over(tx: ModelTx, agent: Agent, lease: timedelta | None) -> bool:
    return _ran_out(tx, agent, lease) or (
        agent.lease_until is None
        and (agent.kind != "agent" or agent.draining)
        and any(one.placed_on == agent.agent_id for one in tx.data.active.values())
    )


def _ran_out(tx: ModelTx, agent: Agent, lease: timedelta | None) -> bool:
    if agent.lease_until is None or agent.lease_until >= tx.now:
        return False
    if agent.kind == "agent":
        return True
    if tx.data.presence is None:
        return False
    since, seen_at = tx.data.presence
    quiet = _SILENCE if lease is None else min(_SILENCE, lease / 2)
    return seen_at > tx.now - quiet and since <= tx.now - (lease or timedelta(0))


def expired_agents(tx: ModelTx, lease: timedelta) -> list[str]:
    over = [name for name, agent in tx.data.agents.items() if _is_over(tx, agent, lease)]
    return sorted(name for name in over if not tx.passes_over())


def is_expired(tx: ModelTx, agent_id: str, lease: timedelta | None) -> bool:
    agent = tx.data.agents.get(agent_id)
    return agent is not None and _is_over(tx, agent, lease)


def forget_lease(tx: ModelTx, agent_id: str, lease: timedelta) -> None:
    agent = tx.data.agents.get(agent_id)
    if agent is None or not _ran_out(tx, agent, lease):
        return
    agent.lease_until = None
    agent.draining = agent.draining or agent.kind == "agent"
    if agent.kind == "worker":
        _count_slots(tx, str(agent.executor), agent.queues)
    elif agent.kind == "attempt":
        del tx.data.agents[agent_id]


# Workers


def register_worker(tx: ModelTx, registration: Registration, lease: timedelta) -> list[str]:
    known = tx.data.agents.get(registration.worker_id)
    if known is not None and known.kind != "worker":
        raise Forbidden("This id is the one of a service's own agent.")
    numbers = (registration.boot_number, None if known is None else known.boot_number)
    if None not in numbers and numbers[0] < numbers[1]:  # type: ignore[operator]  # neither is None
        raise _superseded(registration.worker_id)
    _refuse_foreign(tx, known, registration)
    tx.data.agents[registration.worker_id] = Agent(
        registration.worker_id,
        "worker",
        registration.host,
        tx.now,
        _renewed(known if known is not None and known.boot_id == registration.boot_id else None, tx.now + lease),
        [],
        registration.executor,
        list(registration.queues),
        registration.slots,
        registration.boot_id,
        registration.token_hash,
        registration.boot_number,
    )
    if known is not None and known.executor != registration.executor:
        _count_slots(tx, str(known.executor), known.queues)
    _count_slots(tx, registration.executor, {*registration.queues, *(known.queues if known is not None else ())})
    return [one for one in _of_earlier_boots(tx, registration) if one not in registration.held]


def _refuse_foreign(tx: ModelTx, known: Agent | None, registration: Registration) -> None:
    """Refuse what would take a worker of other queues over, and what no worker can serve."""
    if known is not None and registration.allowed is not None:
        others = sorted(set(known.queues) - set(registration.allowed))
        lives = known.lease_until is not None and known.lease_until > tx.now and not known.draining
        if others and (lives or _of_earlier_boots(tx, registration)):
            text = f"This id is the one of a worker that serves {', '.join(others)}; your key is not for that."
            raise Forbidden(text)
    announced = [executor for agent in tx.data.agents.values() if agent.kind == "agent" for executor in agent.executors]
    placing = {one["name"] for one in announced} - {one["name"] for one in announced if one.get("by_queue")}
    if registration.executor in placing:
        raise Forbidden(f"The executor {registration.executor!r} has no queues that a worker could serve.")


def _of_earlier_boots(tx: ModelTx, registration: Registration) -> list[str]:
    return sorted(
        attempt.id
        for attempt in tx.data.active.values()
        if attempt.placed_on == registration.worker_id
        and attempt.state == "running"
        and attempt.boot_id != registration.boot_id
    )


def beat_worker(
    tx: ModelTx, worker_id: str, *, token_hash: str, boot_id: str, lease: timedelta, draining: bool
) -> bool:  # fmt: skip
    known = _known(tx, worker_id, token_hash, boot_id)
    is_counted = known.lease_until is not None and known.lease_until > tx.now + lease / 2
    was_draining = known.draining
    known.seen_at, known.lease_until, known.draining = tx.now, _renewed(known, tx.now + lease), draining
    if not is_counted or was_draining != draining:
        _count_slots(tx, str(known.executor), known.queues)
    return known.drain_asked


def leave_worker(tx: ModelTx, worker_id: str, *, token_hash: str, boot_id: str) -> None:
    known = _known(tx, worker_id, token_hash, boot_id)
    known.seen_at, known.draining = tx.now, True
    _count_slots(tx, str(known.executor), known.queues)


def ask_to_drain(tx: ModelTx, worker_id: str) -> None:
    known = tx.data.agents.get(worker_id)
    if known is None or known.kind != "worker":
        raise NotFound("worker", worker_id)
    known.drain_asked = True
    tx.topics.add("stop")


def forget_workers(tx: ModelTx, keep: timedelta) -> int:
    held = {attempt.placed_on for attempt in tx.data.active.values()}
    old = [
        name
        for name, one in tx.data.agents.items()
        if one.kind == "worker" and one.seen_at < tx.now - keep and name not in held
        if one.lease_until is None or one.lease_until < tx.now
    ]
    for name in old:
        del tx.data.agents[name]
    return len(old)


def _count_slots(tx: ModelTx, executor: str, queues: Iterable[str]) -> None:
    """Give each queue as many credits as its live workers have slots, and one in ten more, at least one."""
    live = [
        one
        for one in tx.data.agents.values()
        if one.kind == "worker" and one.executor == executor and not one.draining
        if one.lease_until is not None and one.lease_until > tx.now
    ]
    for queue in sorted(queues):
        slots = sum(one.slots for one in live if queue in one.queues)
        tx.set_capacity(f"slots:{executor}/{queue}", slots + max(1, slots // 10) if slots else 0)
        tx.topics.add("ready")


def require_server(tx: ModelTx, worker_id: str, boot_id: str, *, executor: str, queue: str | None) -> None:
    known = tx.data.agents.get(worker_id)
    if known is None or known.kind != "worker":
        raise NotFound("worker", worker_id)
    if known.boot_id != boot_id:
        raise _superseded(worker_id)
    if known.lease_until is None or known.lease_until <= tx.now:
        raise Unavailable("The lease of this worker is over; it has to be heard of first.")
    if known.executor != executor or queue not in known.queues:
        raise Forbidden(f"This worker does not serve the queue {queue!r} of the executor {executor!r}.")


def _known(tx: ModelTx, worker_id: str, token_hash: str, boot_id: str) -> Agent:
    known = tx.data.agents.get(worker_id)
    if known is None or known.kind != "worker":
        raise NotFound("worker", worker_id)
    if known.boot_id != boot_id:
        raise _superseded(worker_id)
    if known.token_hash != token_hash:
        raise BadCredential(f"This is not the token of the worker {worker_id}.")
    return known


def _superseded(worker_id: str) -> Gone:
    return Gone("worker_superseded", f"Another process has registered as the worker {worker_id} since.")


# A supervisor of one attempt, registered nowhere


def lone(attempt_id: str) -> str:
    return f"attempt:{attempt_id}"


def hold_alone(tx: ModelTx, attempt: Attempt, boot_id: str, lease: timedelta) -> None:
    name = lone(attempt.id)
    tx.data.agents[name] = Agent(
        name, "attempt", "", tx.now, tx.now + lease, [], attempt.executor, [], 0, boot_id
    )  # fmt: skip


def let_go(tx: ModelTx, attempt_id: str) -> None:
    tx.data.agents.pop(lone(attempt_id), None)


def beat_attempt(tx: ModelTx, attempt_id: str, *, key_hash: str, boot_id: str, lease: timedelta) -> str | None:
    attempt = tx.data.attempts.get(attempt_id)
    if attempt is None:
        raise NotFound("attempt", attempt_id)
    if attempt.key_hash is None or attempt.key_hash != key_hash:
        raise BadCredential(f"This is not the key of the attempt {attempt_id}.")
    if attempt.state != "running" or attempt.boot_id != boot_id:
        raise Gone(
            "attempt_gone", f"The attempt {attempt_id} is {attempt.state}: it is not this supervisor's any more."
        )  # fmt: skip
    beat(tx, lone(attempt_id), "", lease)
    return attempt.stop_reason


def stage_output(tx: ModelTx, attempt_id: str, *, key_hash: str, value: str) -> None:
    attempt = tx.data.attempts.get(attempt_id)
    if attempt is None:
        raise NotFound("attempt", attempt_id)
    if attempt.key_hash is None or attempt.key_hash != key_hash:
        raise BadCredential(f"This is not the key of the attempt {attempt_id}.")
    if attempt.state != "running":
        raise Gone("attempt_gone", f"The attempt {attempt_id} is {attempt.state}: it takes no output any more.")
    attempt.staged = value


# Offers


def defer_attempt(tx: ModelTx, attempt_id: str, reason: str, retry_after: timedelta) -> bool:
    attempt = tx.data.active.get(attempt_id)
    if attempt is None or attempt.state != "queued":
        return False
    attempt.launch_after, attempt.deferred_reason = tx.now + retry_after, reason
    return True


def take_up(tx: ModelTx, offers: Mapping[str, tuple[timedelta, int]], *, eager: bool = False) -> list[str]:
    mine = []
    for attempt_id, (delay, again) in sorted(offers.items()):
        attempt = tx.data.active.get(attempt_id)
        if attempt is None or attempt.state != "queued" or attempt.placed_on is not None:
            continue
        is_due = attempt.launch_after is not None and attempt.launch_after <= tx.now
        if is_due or (eager and attempt.deferred_reason is not None):
            attempt.launch_after, attempt.deferred_reason = tx.now + delay, None
            attempt.relaunches += again
            mine.append(attempt_id)
    return mine


# What an installation has once


def signing_key(tx: ModelTx) -> bytes:
    if tx.data.signing_key is None:
        tx.data.signing_key = tx.entropy.token(32)
    return tx.data.signing_key


def mark_serving(tx: ModelTx, gap: timedelta) -> None:
    since, seen_at = tx.data.presence or (tx.now, tx.now)
    tx.data.presence = (since if abs(tx.now - seen_at) <= gap else tx.now, tx.now)
