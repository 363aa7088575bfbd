"""What the log says so far: runs, their instances, and every attempt there ever was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.simulation.checker.steps import ACTIVE, RUN_FINAL, TASK_FINAL

if TYPE_CHECKING:
    from tests.simulation.checker.document import Document, Task
    from tests.simulation.checker.violations import Line

InstanceKey = tuple[str, str, str, int]


@dataclass(slots=True)
class Attempt:
    """One attempt, by its id."""

    attempt_id: str
    instance: InstanceKey
    fence: int
    #: The events that queued, started and ended it.
    queued: Line
    started: Line | None = None
    ended: Line | None = None
    #: Where those stand in the log.
    queued_at: int = 0
    started_at: int = 0
    ended_at: int = 0
    #: The attempts whose success its upstreams were in when it started.
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether its success was accepted."""
        return self.ended is not None and self.ended["to_state"] == "success"


@dataclass(slots=True)
class Instance:
    """One task in one run."""

    key: InstanceKey
    state: str = "pending"
    fence: int = 0
    attempt: Attempt | None = None
    failures: int = 0
    losses: int = 0
    #: Its log was wrong, so that its next event says where it stands.
    doubted: bool = False
    #: Its last event.
    row: Line | None = None

    @property
    def active(self) -> bool:
        """Whether an attempt of it exists that has not ended."""
        return self.state in ACTIVE


@dataclass(slots=True)
class Run:
    """One run."""

    dag_id: str
    run_id: str
    state: str = ""
    seq: int = 0
    version: int | None = None
    document: Document | None = None
    instances: dict[tuple[str, int], Instance] = field(default_factory=dict)
    #: Why it was asked to stop: ``user``, ``run_timeout``.
    stop: str | None = None
    #: Tasks that have instances, where the log says that it is not all of them.
    created: int | None = None
    #: Instances were cleared after its end: it has to be queued again.
    reopened: bool = False
    #: A cancel before its start ends it before what is open of it.
    closing: bool = False
    #: Something of its log was wrong: what only follows from that is not told as well.
    doubted: bool = False
    #: What stopped it, and what of it was cleared.
    cancels: list[Line] = field(default_factory=list)
    clears: list[Line] = field(default_factory=list)
    #: How a key opened it again after its end.
    reopenings: list[Line] = field(default_factory=list)
    #: Every state it had, with the row.
    states: list[tuple[str, Line]] = field(default_factory=list)
    row: Line | None = None

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.state in RUN_FINAL

    def task(self, task_id: str) -> Task | None:
        """Return what its pinned version says about a task; None where nobody said which version that is."""
        return None if self.document is None else self.document.tasks.get(task_id)

    def instance(self, task_id: str, map_index: int) -> Instance:
        """Return an instance, as it is before its first event where it has had none."""
        key = (task_id, map_index)
        found = self.instances.get(key)
        if found is None:
            found = self.instances[key] = Instance((self.dag_id, self.run_id, *key))
        return found

    def ended_state(self, task_id: str) -> str | None:
        """Return how a task ended, None while it has not."""
        instance = self.instances.get((task_id, -1))
        return instance.state if instance is not None and instance.state in TASK_FINAL else None
