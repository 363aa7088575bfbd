"""The queries: what there is to do, who waits, who could take it; and healing, which finds nothing here."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from api.heartbeats import Beaten
from dag.errors import RunyardError
from metastore.queries.work import MOST, Stopping
from metastore.queries.workers import Directive
from scheduler.decide import Snapshot
from tests.simulation.model import rules
from tests.simulation.model.going import end_if_done, unblock
from tests.simulation.model.records import placed as placed_record
from tests.simulation.model.records import run_record
from tests.simulation.model.rows import RUN_FINAL
from tests.simulation.model.workers import beat_attempt, beat_worker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from metastore.queries.work import Placed
    from tests.simulation.model.rows import Attempt, Instance, Metastore, ModelTx, Run


def _healthy(run: Run, now: datetime) -> bool:
    return run.quarantined_until is None or run.quarantined_until <= now


def snapshot(tx: ModelTx, now: datetime, placing: Sequence[str], queueing: Sequence[str]) -> Snapshot:
    data = tx.data
    running = [run for run in data.runs.values() if run.state == "running" and _healthy(run, now)]
    return Snapshot(
        overdue=[run.id for run in running if run.deadline_at is not None and run.deadline_at <= now][:MOST],
        unmaterialised=[run.id for run in running if not run.materialised][:MOST],
        due=[run.id for run in running if run.materialised and any(_is_due(one, now) for one in run.instances)][:MOST],
        startable=_startable(data, now),
        ready=[*_with_ready(data, placing), *executors_with_offers(tx, queueing)],
    )


def _is_due(one: Instance, now: datetime) -> bool:
    return one.due_at is not None and one.due_at <= now


def _startable(data: Metastore, now: datetime) -> list[int]:
    found = []
    for dag in data.dags.values():
        limit = data.limits[f"dag:{dag.dag_id}:runs"]
        if dag.paused or not limit.has_room:
            continue
        waiting = sorted(
            (run.run_after, run.id)
            for run in data.runs.values()
            if run.dag is dag and run.state == "queued" and run.run_after <= now and _healthy(run, now)
        )
        found += waiting[: MOST if limit.free is None else limit.free]
    return [run for _, run in sorted(found)[:MOST]]


def _ready(data: Metastore, executor: str) -> list[Instance]:
    return [
        one
        for run in data.runs.values()
        if run.state == "running"
        for one in run.instances
        if one.executor == executor and one.state == "scheduled" and one.blocked_on is None
    ]


def _with_ready(data: Metastore, executors: Sequence[str]) -> list[str]:
    return [name for name in executors if _ready(data, name)]


def executors_with_offers(tx: ModelTx, executors: Sequence[str]) -> list[str]:
    found = []
    for name in executors:
        rooms = [tx.data.limits.get(f"slots:{name}/{one.task.queue}") for one in _ready(tx.data, name)]
        if any(room is not None and room.capacity is not None and room.has_room for room in rooms):
            found.append(name)
    return found


def next_due(tx: ModelTx, now: datetime) -> datetime | None:
    moments: list[datetime | None] = []
    for run in tx.data.runs.values():
        if run.state == "queued":
            moments.append(run.run_after)
        elif run.state == "running":
            moments.append(run.deadline_at)
        moments.append(run.quarantined_until)
        moments += [one.due_at for one in run.instances]
    return min((moment for moment in moments if moment is not None and moment > now), default=None)


def idle_beside_ready(tx: ModelTx, slots: Sequence[tuple[str, str]]) -> bool:
    limits = tx.data.limits
    return any(key in limits and limits[key].has_room and _ready(tx.data, executor) for executor, key in slots)


def next_expiry(tx: ModelTx) -> datetime | None:
    return min((one.lease_until for one in tx.data.agents.values() if one.lease_until is not None), default=None)


def placed(tx: ModelTx, places: Sequence[str]) -> list[Placed]:
    return [placed_record(one) for one in _active(tx) if one.placed_on in places]


def _active(tx: ModelTx) -> list[Attempt]:
    return [tx.data.active[key] for key in sorted(tx.data.active)]


def stopping(tx: ModelTx, places: Sequence[str]) -> list[Stopping]:
    found: list[Any] = [one for one in _active(tx) if one.placed_on in places and one.state == "running"]
    return [
        Stopping(one.id, one.executor, one.placed_on, one.stop_reason) for one in found if one.stop_reason is not None
    ]


def stopping_on(tx: ModelTx, workers: Sequence[str]) -> list[Directive]:
    return [Directive(_place(tx, one.id), one.id, one.reason) for one in stopping(tx, workers)]


def _place(tx: ModelTx, attempt_id: str) -> str:
    return str(tx.data.attempts[attempt_id].placed_on)


def asked_to_drain(tx: ModelTx, workers: Sequence[str]) -> list[str]:
    return [name for name in workers if name in tx.data.agents and tx.data.agents[name].drain_asked]


def offered(
    tx: ModelTx, now: datetime, executors: Sequence[str], *, everything: bool = False
) -> list[Placed]:  # fmt: skip
    found = []
    for one in _active(tx):
        if one.state != "queued" or one.placed_on is not None or one.executor not in executors:
            continue
        is_due = one.launch_after is not None and one.launch_after <= now
        if is_due or (everything and one.deferred_reason is not None):
            found.append(placed_record(one))
    return found[:MOST]


def next_offer(tx: ModelTx, executors: Sequence[str]) -> datetime | None:
    waiting = [
        one.launch_after
        for one in tx.data.active.values()
        if one.state == "queued" and one.placed_on is None and one.executor in executors
    ]
    return min((moment for moment in waiting if moment is not None), default=None)


def idle_slots(tx: ModelTx, now: datetime, executor: str) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for worker in tx.data.agents.values():
        if worker.kind != "worker" or worker.executor != executor or worker.draining:
            continue
        if worker.lease_until is None or worker.lease_until <= now:
            continue
        busy = sum(one.placed_on == worker.agent_id for one in tx.data.active.values())
        for queue in worker.queues:
            workers, slots = found.get(queue, (0, 0))
            found[queue] = (workers + 1, slots + max(0, worker.slots - busy))
    return found


def get(tx: ModelTx, dag_id: str, run_id: str) -> Any:
    run = tx.data.by_name.get((dag_id, run_id))
    return None if run is None else run_record(run)


# What the API shares out among those who beat


def renew_workers(tx: ModelTx, beats: Sequence[Any], lease: timedelta) -> list[Any]:
    found: list[Any] = []
    for beat in beats:
        try:
            drain = beat_worker(
                tx, beat.place, token_hash=beat.token_hash, boot_id=beat.boot_id, lease=lease, draining=beat.drains
            )
            found.append(Beaten(drain, _asked(tx, beat.place)))
        except RunyardError as error:
            found.append(error)
    return found


def renew_attempts(tx: ModelTx, beats: Sequence[Any], lease: timedelta) -> list[Any]:
    found: list[Any] = []
    for beat in beats:
        try:
            reason = beat_attempt(tx, beat.attempt_id, key_hash=beat.key_hash, boot_id=beat.boot_id, lease=lease)
            found.append(Beaten(drain=False, asked={} if reason is None else {beat.attempt_id: reason}))
        except RunyardError as error:
            found.append(error)
    return found


def _asked(tx: ModelTx, place: str) -> dict[str, str]:
    return {one.attempt_id: one.reason for one in stopping_on(tx, [place])}


def look(tx: ModelTx, places: Sequence[str]) -> tuple[dict[str, dict[str, str]], set[str]]:
    asked = {place: _asked(tx, place) for place in places}
    return {place: found for place, found in asked.items() if found}, set(asked_to_drain(tx, places))


# Healing


def active_runs(tx: ModelTx, now: datetime, after: int, most: int) -> list[int]:
    found = [
        run.id
        for run in tx.data.runs.values()
        if run.state in ("running", "cancelling") and run.id > after and _healthy(run, now)
    ]
    return found[:most]


def doubtful_runs(tx: ModelTx, ids: Sequence[int]) -> list[int]:
    return [number for number in ids if _asleep(tx.data.runs[number])]


def _asleep(run: Run) -> list[Instance]:
    """Return instances whose rule is decided, and that nobody was told to look at."""
    if run.state in RUN_FINAL or run.state == "queued" or not run.materialised:
        return []
    pending = [one for one in run.instances if one.state == "pending" and one.due_at is None]
    return [one for one in pending if rules.judge(one) != "wait"]


def verify_run(tx: ModelTx, run: int) -> bool:
    found = tx.data.runs.get(run)
    if found is None:
        return False
    asleep = _asleep(found)
    ends = found.state in ("running", "cancelling") and found.materialised and not found.unfinished
    if not asleep and not ends:
        return False
    data = {"asleep": len(asleep)}
    tx.event("run.healed", actor="scheduler", run=found, reason="counters", data=data)
    for one in asleep:
        one.due_at = tx.now
        tx.topics.add("due")
    end_if_done(tx, found, "scheduler")
    return True


def limit_keys(tx: ModelTx, after: str, most: int) -> list[str]:
    return sorted(key for key in tx.data.limits if key > after)[:most]


def doubtful_limits(tx: ModelTx, keys: Sequence[str]) -> list[str]:
    held = {one.blocked_on for run in tx.data.runs.values() for one in run.instances if one.blocked_on is not None}
    return [key for key in keys if key in held and tx.data.limits[key].has_room]


def verify_limit(tx: ModelTx, key: str) -> bool:
    limit = tx.data.limits.get(key)
    if limit is not None and limit.has_room:
        most = 1_000 if limit.free is None else limit.free
        if unblock(tx, key, most):
            tx.topics.add("ready")
    return False


def quarantine_run(tx: ModelTx, run: int, why: str) -> Any:
    found = tx.data.runs.get(run)
    if found is None or found.state in RUN_FINAL:
        return None
    times = found.quarantines
    until = tx.now + min(timedelta(seconds=2 ** min(times, 16)), timedelta(minutes=5))
    data = {"until": until.isoformat(), "times": times + 1}
    tx.event("run.quarantined", actor="scheduler", run=found, reason=why[:500], data=data)
    found.quarantined_until, found.quarantines = until, times + 1
    tx.topics.add("due")
    return until
