"""What an executor promises.

An executor places attempts and reports facts about placements; it never sets and never guesses a task's state.  That is
the scheduler's, and ``success`` comes only from a supervisor's ``finish``.

The promises, one scenario each in :mod:`executors.conformance`:

- launching the same attempt twice runs it once;
- every accepted attempt ends in exactly one outcome;
- cancelling an ended attempt does nothing, a queued one never starts, a running one has its whole process tree dead
  within its grace;
- capacity is never exceeded;
- after a restart of the scheduler running attempts are adopted by ``observe``, not repeated;
- an outage of the medium defers, loses nothing, resumes by itself and is never a task's failure;
- exit code, signal, timeout and the loss of infrastructure are told apart;
- output and logs arrive in order, unmixed, whole up to their cap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from worker.settings import HTTP_PORTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from dag.ids import AttemptId
    from dag.world import Clock, Entropy
    from worker.protocol import Finish, Message, Start, StopReason

#: The version of this contract; an executor names the one it was written for.
API_VERSION: Final = 1


class Phase(StrEnum):
    """Where a placement is; NOT the state of a task."""

    #: Accepted, its supervisor has not started user code.
    PENDING = "pending"
    RUNNING = "running"
    #: User code ended; its ``finish`` is on the way.
    EXITED = "exited"
    #: The infrastructure does not know it.
    GONE = "gone"
    #: Nothing can be said at the moment.
    UNKNOWN = "unknown"


class Cause(StrEnum):
    """Why a placement failed, where that is known."""

    EXIT = "exit"
    SIGNAL = "signal"
    OOM = "oom"
    WORKER_LOST = "worker_lost"
    CONFIG = "config"
    DRAINED = "drained"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Launch:
    """What is needed to have a supervisor start an attempt; everything else comes with its start."""

    attempt_id: AttemptId
    #: For display only: dag_id, run_id, task_id, map_index, try_number.
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Which workers may take it, where the executor is ``by_queue``.
    queue: str = "default"
    #: The greater goes first, where the medium knows an order.
    priority: int = 0
    #: What a worker shows to start it (:mod:`dag.tickets`); "" where no worker has to.
    ticket: str = field(default="", repr=False)
    #: The metastore has it as started, and the answer to that may have been lost: it has its slot already.
    started: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """The attempt is placed, now or earlier."""

    attempt_id: AttemptId


@dataclass(frozen=True, slots=True)
class Deferred:
    """Not now: an outage, a quota, a full queue.  Never a task's failure."""

    attempt_id: AttemptId
    reason: str
    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class Rejected:
    """It can never work as it is specified."""

    attempt_id: AttemptId
    cause: Cause
    detail: str


LaunchResult = Accepted | Deferred | Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A fact about a placement; may be late, repeated or out of order."""

    attempt_id: AttemptId
    phase: Phase
    #: With ``GONE``: the supervisor that answers there now.  A running attempt of another one is proved dead, one of
    #: this very supervisor was never received and is launched again.
    boot_id: str | None = None
    detail: str = ""


class HealthStatus(StrEnum):
    """How an executor is."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Health:
    """How an executor is, and why."""

    status: HealthStatus
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What kind of executor it is."""

    #: Placements outlive the scheduler's process.
    survives_scheduler: bool
    #: ``observe`` tells PENDING from GONE.
    observable: bool
    #: ``cancel`` can remove a placement that has not started.
    revocable: bool


class Door(Protocol):
    """The side that holds the metastore, as a supervisor sees it.

    Both calls are safe to repeat.  They raise :exc:`~dag.errors.Unavailable` while the metastore cannot be reached; the
    supervisor asks again.
    """

    async def start(self, message: Start, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        """Return one ``task`` or ``refused``; a ``cancel`` before the task where it was asked to stop meanwhile.

        *key_hash* is of the secret that the supervisor will show with all that it says of this attempt (remote ones
        only); *placed_on* None is a supervisor that is registered nowhere, whose lease is the attempt's own.
        """
        ...

    async def finish(self, message: Finish, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        """Return ``finished``, and where ``more`` was asked for, tasks that were started for *placed_on* with it."""
        ...


class Context(Protocol):
    """What an executor gets from the scheduler."""

    clock: Clock
    entropy: Entropy
    door: Door

    def report(self, observation: Observation) -> None:
        """Hand over a fact that came by itself; never blocks.  Losing every report costs only latency."""
        ...

    def wake(self) -> None:
        """Ask for a reconcile soon: a connection came back, a supervisor was replaced."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorConfig:
    """What a factory gets: the settings an executor may read, and no others."""

    name: str
    #: The private folder of this service (0700).
    home: Path
    #: Where user code lives; first on ``sys.path`` of python tasks, base of a relative ``cwd``.
    code_dir: Path
    #: The folder of attempt logs.
    log_dir: Path
    #: The interpreter that runs ``python`` tasks.
    task_python: str
    #: How many attempts may run at once; 0: only what was placed earlier is looked after.
    parallelism: int
    #: What ``http`` tasks may reach besides public addresses (networks, host names), and at which ports.
    http_allow: tuple[str, ...] = ()
    http_ports: tuple[int, ...] = HTTP_PORTS
    options: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Executor(Protocol):
    """Places attempts somewhere and says how the placements are."""

    name: str
    api_version: int
    traits: Traits
    #: Which agent holds what this executor places; None: any scheduler may act.  Known after ``start``.
    placed_on: str | None
    #: How many attempts may be placed at once; None is unbounded, or ``by_queue``: what live workers have.  0: nothing
    #: is admitted to it, and it looks after what is there.
    slots: int | None
    #: Attempts are admitted queue by queue, as far as live workers serve them, and whoever takes one starts it.
    by_queue: bool

    async def start(self, context: Context) -> None:
        """Make ready; returns soon, even while the medium is away."""
        ...

    async def stop(self, *, drain: timedelta) -> None:
        """Stop within *drain* and a few seconds; attempts that had to be stopped finish as ``drained``."""
        ...

    async def launch(self, batch: Sequence[Launch]) -> Sequence[LaunchResult]:
        """Place every attempt of *batch*; idempotent by attempt id; never sleeps and never retries inside."""
        ...

    async def cancel(self, batch: Sequence[AttemptId], *, reason: StopReason) -> None:
        """Ask for the end of attempts; idempotent, never raises for what is not there, never waits for the end."""
        ...

    async def observe(self, batch: Sequence[AttemptId]) -> Sequence[Observation]:
        """Say where each placement is: adoption and reconciliation are this one call."""
        ...

    def renew(self, ttl: timedelta | None) -> None:
        """The database lease of ``placed_on`` was renewed for *ttl* from now; None: nobody else can take its attempts.

        Supervisors that are not renewed in time end their tasks by themselves (self-fencing).
        """
        ...

    def health(self) -> Health:
        """How it is, from what is known already."""
        ...


class Factory(Protocol):
    """What an entry point of the group ``runyard.executors`` names."""

    def __call__(self, config: ExecutorConfig) -> Executor:
        """Return a new executor; does no I/O."""
        ...
