"""Admission: who of the ready instances gets a slot, and the attempt that comes with it.

Works on what is ready, by priority, whatever run it belongs to.  Rows of other runs are taken with SKIP LOCKED only, so
that a command which already holds one run never waits for another: whoever holds the skipped run looks again itself, or
the safety poll does.  Limits are locked in :func:`~metastore.commands.turn.lock_rank` order before they are read, and
granted in plain code (:func:`grant`): counting first and claiming later is a race.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import BigInteger, Integer, Text, and_, bindparam, case, or_, select, text, update

from dag.ids import AttemptId, uuid7
from dag.references import Unresolved
from dag.states import ATTEMPT_STEPS, TASK_STEPS, AttemptState, AttemptStep, TaskState, TaskStep, step
from metastore.among import among
from metastore.commands.body import build_body
from metastore.commands.turn import Turn, close_turns, open_turn, unblock
from metastore.each import Each, EachNew, expect
from metastore.models.attempts import attempts
from metastore.models.base import Instant
from metastore.models.limits import limits, queues_prefix
from metastore.models.runs import runs, task_instances

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from metastore.store import Tx
    from worker.protocol import TaskBody

_Bag = TypeVar("_Bag", Counter[str], set[tuple[str, str]])

#: An offer to a queue that nobody has taken for this long is looked at.
TAKEN_WITHIN: Final = timedelta(seconds=15)
#: How many instances one command admits at the most; the rest follows in the next one.
MOST_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Outlet:
    """A place that attempts can be admitted to: an executor, and the agent that holds what it places."""

    executor: str
    placed_on: str | None
    #: The supervisor behind it, where it may get attempts that are started already (a finish that asked for more).
    boot_id: str | None = None
    #: One queue of an executor that works by queues, as :func:`_places` finds them; None: whatever its queue.
    queue: str | None = None
    #: Every queue that has room is such a place.
    by_queue: bool = False

    @property
    def slots_key(self) -> str:
        """The key of the limit that counts its slots."""
        if self.queue is not None:
            return f"{queues_prefix(self.executor)}{self.queue}"
        return f"slots:{self.executor}" + (f"@{self.placed_on}" if self.placed_on else "")


@dataclass(frozen=True, slots=True)
class Admitted:
    """An attempt that was queued, and started too where there is a *body*."""

    attempt_id: AttemptId
    executor: str
    placed_on: str | None
    labels: Mapping[str, str]
    body: TaskBody | None = None
    queue: str = "default"
    priority: int = 0


_instance = task_instances.c
#: As :func:`~metastore.commands.turn.lock_rank` has it.
_SLOTS_FIRST: Final = (case((limits.c.key.like("slots:%"), 0), else_=1), limits.c.key)
_LIMITS: Final = (
    select(limits.c.key, limits.c.capacity, limits.c.used)
    .where(among(limits.c.key, "keys"))
    .order_by(*_SLOTS_FIRST)
    .with_for_update()
)
#: With those of the queues that have room.
_LIMITS_AND_QUEUES: Final = (
    select(limits.c.key, limits.c.capacity, limits.c.used)
    .where(or_(among(limits.c.key, "keys"), and_(among(limits.c.queue_of, "of"), limits.c.used < limits.c.capacity)))
    .order_by(*_SLOTS_FIRST)
    .with_for_update()
)
# A second round of limits may stand before one of the first in the lock order, so it must not wait.
_LIMITS_FREE: Final = (
    select(limits.c.key, limits.c.capacity, limits.c.used)
    .where(among(limits.c.key, "keys"))
    .order_by(limits.c.key)
    .with_for_update(skip_locked=True)
)
# Only running runs have scheduled instances: what stops a run ends them in the same transaction.
_ANY_CANDIDATES: Final = (
    select(
        _instance.id,
        _instance.run,
        _instance.task_no,
        _instance.task_id,
        _instance.map_index,
        _instance.state,
        _instance.try_number,
        _instance.executor,
        _instance.queue,
        _instance.priority_weight,
        runs.c.dag_id,
    )
    .select_from(task_instances.join(runs, runs.c.id == _instance.run))
    .where(
        _instance.executor == bindparam("executor"),
        _instance.blocked_on.is_(None),
    )
    .order_by(_instance.priority_weight.desc(), _instance.scheduled_at, _instance.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
# In its text, so that a plan that is made once can use the index of what is ready.
_CANDIDATES: Final = _ANY_CANDIDATES.where(text(f"task_instances.state = '{TaskState.SCHEDULED}'"))
# As a parameter, so that it is planned with its values: where nearly all tasks are in one queue, a plan for any queue
# would read what is ready in that one to find nothing in another.
_CANDIDATES_OF_QUEUE: Final = _ANY_CANDIDATES.where(
    _instance.state == TaskState.SCHEDULED.value, _instance.queue == bindparam("queue")
)
_QUEUE: Final = Each(
    "queue",
    {"instance": BigInteger, "to": Text, "now": Instant, "started": Instant},
    lambda value: (
        update(task_instances)
        .where(_instance.id == value("instance"), _instance.state == TaskState.SCHEDULED.value)
        .values(
            state=value("to"),
            try_number=_instance.try_number + 1,
            queued_at=value("now"),
            started_at=value("started"),
            ended_at=None,
            reason=None,
            error=None,
            due_at=None,
        )
    ),
)
_BLOCK: Final = (
    update(task_instances)
    .where(among(_instance.id, "ids"), _instance.state == TaskState.SCHEDULED.value)
    .values(blocked_on=bindparam("key"), reason=bindparam("why"))
)
_ADD_ATTEMPTS: Final = EachNew(
    "attempts",
    attempts,
    (
        "id",
        "run",
        "instance",
        "try_number",
        "state",
        "executor",
        "queue",
        "slots",
        "placed_on",
        "launch_after",
        "boot_id",
        "queued_at",
        "started_at",
    ),
)
_CHANGE_USE: Final = Each(
    "limits",
    {"limit_key": Text, "delta": Integer},
    lambda value: (
        update(limits)
        .where(limits.c.key == value("limit_key"), limits.c.used + value("delta") >= 0)
        .values(used=limits.c.used + value("delta"))
    ),
)


@dataclass(slots=True)
class Room:
    """What is left of a limit; *free* is None where it is unbounded."""

    free: int | None


def grant(wanted: Iterable[tuple[Any, str]], rooms: Mapping[str, Room]) -> tuple[list[Any], dict[str, list[Any]]]:
    """Split candidates, best first, into those that fit into their DAG's limit and those it holds back, by its key.

    Pure.  A limit that could not be read just now holds its candidates back as well.
    """
    granted: list[Any] = []
    held: dict[str, list[Any]] = defaultdict(list)
    for candidate, key in wanted:
        room = rooms.get(key)
        if room is not None and room.free is None:
            granted.append(candidate)
        elif room is not None and room.free is not None and room.free > 0:
            room.free -= 1
            granted.append(candidate)
        else:
            held[key].append(candidate)
    return granted, dict(held)


def admit(tx: Tx, outlets: Sequence[Outlet], turns: dict[int, Turn], *, actor: str = "scheduler") -> list[Admitted]:
    """Give the free slots of *outlets* to what is ready, best first.

    *turns* are the runs this command holds already; runs that are touched are added to it, and the caller closes them
    all, which writes what was granted (``Tx.due``).  Slots that these turns freed are handed on without a write.
    """
    freed = _take_over(turns, "freed", Counter[str]())
    ready = _take_over(turns, "ready", set[tuple[str, str]]())
    tasks = {key for key in freed if not key.startswith("slots:")}
    by_queue = sorted({outlet.executor for outlet in outlets if outlet.by_queue})
    rooms = _lock(tx, {*freed, *(outlet.slots_key for outlet in outlets if not outlet.by_queue)}, freed, of=by_queue)
    slots = _places(outlets, rooms)
    _unblock(tx, tasks, rooms)
    candidates = _candidates(tx, slots, rooms, ready)
    more = {f"dag:{row.dag_id}:tasks" for _, row in candidates} - tasks
    rooms |= _lock(tx, more, freed, skip=True)
    granted, held = grant(((pair, f"dag:{pair[1].dag_id}:tasks") for pair in candidates), rooms)
    for key, pairs in held.items():
        if key in rooms:
            _block(tx, key, [row for _, row in pairs])
    change = Counter({key: -n for key, n in freed.items()})
    for outlet, row in granted:
        change.update((outlet.slots_key, f"dag:{row.dag_id}:tasks"))
    # Their rows are locked.
    used = [{"limit_key": key, "delta": change[key]} for key in change if change[key] and key in rooms]
    if used:
        tx.due.append((_CHANGE_USE, used))
    if ready or held:
        tx.topics.add("ready")  # others have slots for it, or the slots it did not take suit others
    return _queue(tx, granted, turns, actor)


def _places(outlets: Sequence[Outlet], rooms: Iterable[str]) -> dict[str, Outlet]:
    """Return the places by the limit that counts them: of an executor that works by queues, each of its queues."""
    found: dict[str, Outlet] = {}
    for outlet in outlets:
        if not outlet.by_queue:
            found[outlet.slots_key] = outlet
            continue
        prefix = queues_prefix(outlet.executor)
        for key in rooms:
            if key.startswith(prefix):
                found[key] = replace(outlet, queue=key.removeprefix(prefix))
    return found


def _take_over(turns: Mapping[int, Turn], name: str, into: _Bag) -> _Bag:
    for turn in turns.values():
        into.update(getattr(turn, name))
        getattr(turn, name).clear()
    return into


def _candidates(
    tx: Tx, slots: Mapping[str, Outlet], rooms: Mapping[str, Room], ready: set[tuple[str, str]]
) -> list[tuple[Outlet, Any]]:
    """Return what the free slots could take, best first; places whose ready instances all fit leave *ready*."""
    candidates: list[tuple[Outlet, Any]] = []
    for key, outlet in sorted(slots.items()):
        room = rooms.get(key)
        if room is None:
            continue  # its scheduler has not registered it yet
        most = MOST_AT_ONCE if room.free is None else min(room.free, MOST_AT_ONCE)
        if most <= 0:
            continue
        asked = {"executor": outlet.executor, "most": most}
        if outlet.queue is None:
            found = tx.conn.execute(_CANDIDATES, asked).all()
        else:
            found = tx.conn.execute(_CANDIDATES_OF_QUEUE, asked | {"queue": outlet.queue}).all()
        candidates += [(outlet, row) for row in found]
        if len(found) < most:
            ready -= {one for one in ready if one[0] == outlet.executor and outlet.queue in (None, one[1])}
        elif most == MOST_AT_ONCE:
            ready.add((outlet.executor, outlet.queue or ""))
    return candidates


def _lock(
    tx: Tx, keys: set[str], freed: Counter[str], *, of: Sequence[str] = (), skip: bool = False
) -> dict[str, Room]:
    """Lock limits and read them, and those of the queues *of* executors that have room.

    With *skip* those that somebody else holds are left out instead of waited for.
    """
    if not keys and not of:
        return {}
    asked = {"keys": sorted(keys)}
    if of:
        rows = tx.conn.execute(_LIMITS_AND_QUEUES, asked | {"of": list(of)}).all()
    else:
        rows = tx.conn.execute(_LIMITS_FREE if skip else _LIMITS, asked).all()
    return {
        row.key: Room(None if row.capacity is None else row.capacity - row.used + freed[row.key])
        for row in rows
    }  # fmt: skip


def _block(tx: Tx, key: str, rows: Sequence[Any]) -> None:
    # The limit's row is locked until the commit, so whoever frees it next sees these as waiting.
    done = tx.conn.execute(_BLOCK, {"ids": [row.id for row in rows], "key": key, "why": "max_active_tasks"})
    expect(done.rowcount, len(rows), f"block on {key}")


def _unblock(tx: Tx, keys: set[str], rooms: Mapping[str, Room]) -> None:
    """Let instances be candidates again that wait for what was freed just now."""
    for key in sorted(keys):
        room = rooms.get(key)
        if room is not None and room.free is not None and room.free > 0:
            unblock(tx, key, room.free)


def _queue(tx: Tx, granted: Sequence[tuple[Outlet, Any]], turns: dict[int, Turn], actor: str) -> list[Admitted]:
    """Open an attempt for every granted instance, and start it where its outlet names a supervisor."""
    admitted: list[Admitted] = []
    queued: list[dict[str, Any]] = []
    new: list[dict[str, Any]] = []
    for outlet, row in granted:
        turn = turns.get(row.run)
        if turn is None:
            # Locked by the candidates' query already: this waits for nobody.
            found = open_turn(tx, row.run)
            assert found is not None  # noqa: S101  # the row is locked by us
            turn = turns[row.run] = found
        attempt_id = AttemptId(str(uuid7(tx.now, tx.entropy.token(10))))
        fence = row.try_number + 1
        body = _body_now(tx, turn, row, fence) if outlet.boot_id else None
        boot_id = None if body is None else outlet.boot_id
        new.append(_attempt(tx, turn, row, outlet, attempt_id, boot_id))
        to = at = step(TASK_STEPS, TaskState(row.state), TaskStep.QUEUE)
        # The limit stands in the log, so that whoever reads only that can tell whether it was ever overshot.
        data = {"slots": outlet.slots_key}
        turn.task_event(row, to, actor=actor, try_number=fence, attempt_id=attempt_id, data=data)
        if body is not None:
            at = step(TASK_STEPS, to, TaskStep.START)
            turn.task_event(row, at, actor="supervisor", from_state=to, try_number=fence, attempt_id=attempt_id)
        queued.append({"instance": row.id, "to": at, "now": tx.now, "started": None if body is None else tx.now})
        labels = {
            "dag_id": turn.dag_id,
            "run_id": turn.run_id,
            "task_id": row.task_id,
            "map_index": str(row.map_index),
            "try_number": str(fence),
        }
        admitted.append(
            Admitted(attempt_id, outlet.executor, outlet.placed_on, labels, body, row.queue, row.priority_weight)
        )
    if new:
        tx.due += [(_QUEUE, queued), (_ADD_ATTEMPTS, new)]
    return admitted


def _attempt(
    tx: Tx, turn: Turn, row: Any, outlet: Outlet, attempt_id: AttemptId, boot_id: str | None
) -> dict[str, Any]:
    state = AttemptState.QUEUED
    if boot_id is not None:
        state = step(ATTEMPT_STEPS, state, AttemptStep.START)
    return {
        "id": attempt_id,
        "run": turn.id,
        "instance": row.id,
        "try_number": row.try_number + 1,
        "state": state,
        "executor": outlet.executor,
        "queue": outlet.queue,
        "slots": outlet.slots_key,
        "placed_on": outlet.placed_on,
        # What goes through a broker may be lost there: it is looked for when it should have been taken.
        "launch_after": None if outlet.queue is None else tx.now + TAKEN_WITHIN,
        "boot_id": boot_id,
        "queued_at": tx.now,
        "started_at": None if boot_id is None else tx.now,
    }


def _body_now(tx: Tx, turn: Turn, row: Any, fence: int) -> TaskBody | None:
    """Return the body of an instance that could be started at once; None: it is queued, and its start says why not."""
    try:
        return build_body(tx, turn, row, fence)
    except Unresolved:
        return None


def admit_ready(tx: Tx, outlets: Sequence[Outlet]) -> list[Admitted]:
    """Give the free slots of *outlets* to what is ready."""
    turns: dict[int, Turn] = {}
    admitted = admit(tx, outlets, turns)
    close_turns(tx, turns.values())
    return admitted
