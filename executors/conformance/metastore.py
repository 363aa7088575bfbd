"""What stands behind the executor under test: attempts, who has them, how they ended, and switches that misbehave."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections import Counter
    from datetime import timedelta

    from dag.ids import AttemptId
    from dag.world import Clock, Entropy
    from executors.base import Door, Executor, Launch
    from worker.protocol import Finish, StopReason, TaskBody

#: States that nothing leaves.
TERMINAL: Final = frozenset({"success", "failed", "timed_out", "cancelled", "drained", "lost", "never_started"})


@dataclass(slots=True)
class Row:
    """One attempt as the metastore has it."""

    attempt_id: AttemptId
    body: TaskBody
    state: str = "queued"
    boot_id: str | None = None
    placed_on: str | None = None
    stop_reason: StopReason | None = None
    finish: Finish | None = None
    #: Every change of state, in order.
    history: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL

    @property
    def ending(self) -> Finish:
        """The accepted finish."""
        if self.finish is None:
            raise LookupError(f"{self.attempt_id} is {self.state}, and no supervisor has finished it")
        return self.finish

    def become(self, state: str) -> None:
        if self.is_over:
            raise AssertionError(f"{self.attempt_id}: {state} after {self.history}")
        self.state = state
        self.history.append(state)
        self.changed.set()

    def output(self) -> object:
        text = self.ending["output"]
        return None if text is None else json.loads(text)


class Metastore(Protocol):
    """Where the bench keeps its attempts.

    :class:`~executors.conformance.reference.Reference` does it in memory, for executors whose supervisors go through
    ``Context.door``; ``runyard.conformance`` does it with a real database behind a real API, for those whose
    workers speak HTTP.  Scenarios see no difference, but for what one of them says it needs: a switch that is None
    does not exist there.
    """

    entropy: Entropy
    door: Door
    rows: dict[AttemptId, Row]
    #: Nothing can be reached.
    is_down: bool
    #: How many of the next answers are lost after their effect was committed, by message type.
    lose_answers: Counter[str]
    #: How many messages of each type came.
    heard: Counter[str]
    #: Attempts whose questions hit a bug of ours.
    poisoned: set[str]
    #: Attempts to start with a finish that asks for more.
    backlog: list[AttemptId] | None

    @property
    def clock(self) -> Clock: ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def serve(self, executor: Executor) -> None:
        """Have what is queued from now on be for *executor*, which has been started."""
        ...

    async def queue(self, body: TaskBody, *, queue: str = "default") -> AttemptId:
        """Have a queued attempt that nobody was told of."""
        ...

    def launch(self, attempt_id: AttemptId) -> Launch:
        """Return what an executor is given to place the attempt."""
        ...

    async def cancel(self, attempt_id: AttemptId, reason: StopReason = "user") -> None:
        """What a cancel does before anybody is told: what is queued is over, what runs is asked to stop."""
        ...

    async def lose(self, attempt_id: AttemptId) -> None:
        """Conclude from a proof of death that a running attempt is lost."""
        ...

    async def reconcile(self) -> None:
        """Be the scheduler for a moment: launch what is not placed, give up what is dead, repeat what was asked."""
        ...

    async def check(self) -> None:
        """Raise AssertionError where its own books are wrong."""
        ...

    def secrets(self) -> list[str]:
        """Return what must be in no argv, no log and no environment: tickets, keys."""
        ...


class Switches(Protocol):
    """What only a metastore behind a real API has: ways to break the network, the API and its clock."""

    def partition(self, state: Literal["open", "refuses", "hangs"]) -> None:
        """Cut workers off from the API, which goes on without them, or mend it (``open``)."""
        ...

    async def outage(self, on: bool) -> None:  # noqa: FBT001  on or off is all it says
        """Have no API at all, or have it again."""
        ...

    def skew(self, by: timedelta) -> None:
        """Have the service's clock be wrong, beside those of its workers."""
        ...

    async def have_lease(self, lease: timedelta) -> None:
        """Give workers leases of that length; return when they have heard of it."""
        ...
