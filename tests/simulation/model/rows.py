"""The rows of the model, and the transaction that its commands run in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dag.plan import Plan, PlanTask
    from dag.world import Entropy

FINAL = ("success", "failed", "skipped", "upstream_failed", "cancelled")
RUN_FINAL = ("success", "failed", "cancelled")


@dataclass(slots=True)
class Version:
    content_hash: str
    document: dict[str, Any]
    plan: Plan


@dataclass(slots=True)
class Dag:
    dag_id: str
    versions: list[Version]
    created_at: datetime
    updated_at: datetime
    description: str | None
    tags: list[str]
    owners: list[str]
    revision: int = 1
    paused: bool = False


@dataclass(slots=True, eq=False)
class Attempt:
    id: str
    run: Run
    instance: Instance
    try_number: int
    executor: str
    queue: str | None
    slots: str
    placed_on: str | None
    queued_at: datetime
    state: str = "queued"
    boot_id: str | None = None
    key_hash: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    launch_after: datetime | None = None
    deferred_reason: str | None = None
    relaunches: int = 0
    stop_reason: str | None = None
    cause: str | None = None
    error: str | None = None
    staged: str | None = None

    @property
    def is_active(self) -> bool:
        return self.state in ("queued", "running")


@dataclass(slots=True, eq=False)
class Instance:
    id: int
    run: Run
    task: PlanTask
    executor: str
    due_at: datetime | None = None
    state: str = "pending"
    reason: str | None = None
    try_number: int = 0
    failures: int = 0
    losses: int = 0
    blocked_on: str | None = None
    scheduled_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    #: (attempt, JSON text)
    output: tuple[str, str] | None = None
    attempt: Attempt | None = None

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def counts_against(self) -> bool:
        """Whether its end makes the run fail."""
        return self.state in ("failed", "upstream_failed") and not self.task.allow_failure


@dataclass(slots=True, eq=False)
class Run:
    id: int
    dag: Dag
    run_id: str
    version: int
    run_type: str
    params: dict[str, Any]
    labels: dict[str, str]
    note: str | None
    logical_date: datetime | None
    data_interval_start: datetime | None
    data_interval_end: datetime | None
    run_after: datetime
    queued_at: datetime
    request_id: str
    created_by: str
    state: str = "queued"
    reason: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deadline_at: datetime | None = None
    materialised: bool = False
    cancel_asked: bool = False
    quarantined_until: datetime | None = None
    quarantines: int = 0
    seq: int = 0
    instances: list[Instance] = field(default_factory=list)

    @property
    def plan(self) -> Plan:
        return self.dag.versions[self.version - 1].plan

    @property
    def unfinished(self) -> int:
        return sum(not one.is_final for one in self.instances)

    @property
    def bad(self) -> int:
        return sum(one.counts_against for one in self.instances)

    @property
    def cancelled(self) -> int:
        return sum(one.state == "cancelled" for one in self.instances)

    @property
    def runs_key(self) -> str:
        return f"dag:{self.dag.dag_id}:runs"

    @property
    def tasks_key(self) -> str:
        return f"dag:{self.dag.dag_id}:tasks"


@dataclass(slots=True)
class Limit:
    capacity: int | None
    used: int = 0

    @property
    def free(self) -> int | None:
        return None if self.capacity is None else self.capacity - self.used

    @property
    def has_room(self) -> bool:
        return self.free is None or self.free > 0


@dataclass(slots=True)
class Agent:
    agent_id: str
    kind: str
    host: str
    seen_at: datetime
    lease_until: datetime | None
    executors: list[dict[str, Any]] = field(default_factory=list)
    executor: str | None = None
    queues: list[str] = field(default_factory=list)
    slots: int = 0
    boot_id: str | None = None
    token_hash: str = ""
    boot_number: int | None = None
    draining: bool = False
    drain_asked: bool = False


@dataclass(slots=True)
class Kept:
    """An answer under an idempotency key."""

    fingerprint: str
    answer: Any
    created_at: datetime


class Metastore:
    """All tables."""

    def __init__(self) -> None:
        self.dags: dict[str, Dag] = {}
        self.runs: dict[int, Run] = {}
        self.by_name: dict[tuple[str, str], Run] = {}
        self.attempts: dict[str, Attempt] = {}
        #: Those that hold a slot, in the order of their ids.
        self.active: dict[str, Attempt] = {}
        self.limits: dict[str, Limit] = {}
        self.agents: dict[str, Agent] = {}
        self.answers: dict[tuple[str, str], Kept] = {}
        self.events: list[dict[str, Any]] = []
        #: (number of the last event before it, limit, capacity)
        self.capacities: list[tuple[int, str, int | None]] = []
        self.signing_key: bytes | None = None
        #: (since, seen at), where an API ever served.
        self.presence: tuple[datetime, datetime] | None = None
        self.instances = 0


class ModelTx:
    """A transaction of the model, as its commands see it; commands change nothing before they can still fail."""

    def __init__(self, data: Metastore, now: datetime, entropy: Entropy, twins: dict[str, Callable[..., Any]]) -> None:
        self.data = data
        self.now = now
        self.entropy = entropy
        self.topics: set[str] = set()
        self._twins = twins
        #: Limits of tasks that this command freed: what they held back may go on.
        self.freed: set[str] = set()
        #: Whether rows of others may be passed over now; tells by chance in the simulation.
        self.passes_over: Callable[[], bool] = lambda: False

    def twin_of(self, command: Callable[..., Any]) -> Callable[..., Any]:
        return self._twins[command.__name__]

    def event(self, kind: str, *, actor: str, run: Run | None = None, **facts: Any) -> None:
        number = len(self.data.events) + 1
        event = {"id": number, "at": self.now, "kind": kind, "actor": actor}
        if run is not None:
            run.seq += 1
            run.quarantined_until, run.quarantines = None, 0  # whoever writes about a run finds it well
            event |= {"dag_id": run.dag.dag_id, "run_id": run.run_id, "run_seq": run.seq}
            self.topics.add(f"run:{run.id}")
        self.data.events.append(event | {name: value for name, value in facts.items() if value is not None})

    def task_event(
        self,
        one: Instance,
        to: str,
        *,
        actor: str,
        attempt: str | None = None,
        reason: str | None = None,
        data: Any = None,
    ) -> None:
        """Move an instance to *to*, and say so."""
        self.event(
            f"task.{to}",
            actor=actor,
            run=one.run,
            task_id=one.task.task_id,
            map_index=-1,
            try_number=one.try_number,
            attempt_id=attempt,
            from_state=one.state,
            to_state=to,
            reason=reason,
            data=data,
        )
        one.state = to

    def run_event(self, run: Run, to: str, *, actor: str, reason: str | None = None) -> None:
        """Move a run to *to*, and say so."""
        self.event(f"run.{to}", actor=actor, run=run, from_state=run.state, to_state=to, reason=reason)
        run.state = to
        if to in RUN_FINAL:
            self.topics.add(f"ended:{run.id}")
        if reason is not None:
            run.reason = reason

    def free(self, key: str) -> None:
        """Give a slot back."""
        limit = self.data.limits.get(key)
        if limit is not None and limit.used > 0:
            limit.used -= 1
        self.topics.add("ready")
        if key.endswith(":tasks"):
            self.freed.add(key)

    def set_capacity(self, key: str, capacity: int | None) -> None:
        limit = self.data.limits.get(key)
        if limit is None:
            self.data.limits[key] = Limit(capacity)
        elif limit.capacity == capacity:
            return
        else:
            limit.capacity = capacity
        if key.startswith("slots:"):
            self.data.capacities.append((len(self.data.events), key, capacity))
