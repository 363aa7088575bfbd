"""Both ends of a broker without what lies behind them: executors, and workers whose hands are the test's."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dramatiq import Worker

from dag.ids import AttemptId, new_id
from executors.base import Accepted, Deferred, ExecutorConfig, Launch
from executors.feed import Dropped
from executors.queues.address import Address
from executors.queues.dramatiq_worker import make_broker
from executors.queues.factory import create_celery, create_dramatiq
from executors.queues.room import Room
from runyard.world import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from executors.base import Context, LaunchResult, Observation, Phase
    from executors.queues.executor import QueueExecutor

TICKET = "rt1.dGlja2V0"
#: How long a machine with other things to do may take for what takes milliseconds.
PATIENCE = 30.0


class Scheduler:
    """What an executor gets from one."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.entropy = SystemEntropy()
        self.woken = asyncio.Event()

    def report(self, observation: Observation) -> None:
        """A queue executor has nothing to report by itself."""

    def wake(self) -> None:
        self.woken.set()


@asynccontextmanager
async def executor_at(
    url: str, library: str = "dramatiq", *, prefix: str = "runyard"
) -> AsyncIterator[tuple[QueueExecutor, Scheduler]]:
    """A started executor, whether or not its broker is there."""
    nowhere = Path("/nonexistent")
    config = ExecutorConfig(
        name=library,
        home=nowhere,
        code_dir=nowhere,
        log_dir=nowhere,
        task_python="python",
        parallelism=1,
        options={"broker_url": url, "prefix": prefix},
    )
    executor = {"dramatiq": create_dramatiq, "celery": create_celery}[library](config)
    scheduler = Scheduler()
    await executor.start(cast("Context", scheduler))
    try:
        yield executor, scheduler
    finally:
        await executor.stop(drain=timedelta(0))


def launches(count: int, queue: str = "default") -> list[Launch]:
    clock, entropy = SystemClock(), SystemEntropy()
    return [Launch(AttemptId(new_id(clock, entropy)), queue=queue, ticket=TICKET) for _ in range(count)]


def ids(batch: Sequence[Launch]) -> list[AttemptId]:
    return [one.attempt_id for one in batch]


def all_accepted(results: Sequence[LaunchResult]) -> bool:
    return all(isinstance(one, Accepted) for one in results)


def reason(results: Sequence[LaunchResult]) -> str:
    """Why all of a launch was deferred."""
    reasons = {one.reason if isinstance(one, Deferred) else "" for one in results}
    assert len(reasons) == 1, results
    (only,) = reasons
    assert only
    return only


async def phases(executor: QueueExecutor, batch: Sequence[Launch]) -> set[Phase]:
    return {one.phase for one in await executor.observe(ids(batch))}


class Hands:
    """Hands that write down what they are given, and hold on to it as long as the test wants."""

    def __init__(self, *, is_open: bool = True, holds: bool = False) -> None:
        self.given: list[tuple[str, str]] = []
        self.busy = 0
        self.most = 0
        self.drops = False
        self.drained = False
        self._is_open = is_open
        self._go_on = threading.Event()
        if not holds:
            self._go_on.set()
        self._lock = threading.Lock()

    # What a worker calls

    def take_up(self, queues: Sequence[str], slots: int) -> None:
        self.queues, self.slots = list(queues), slots
        self.room = Room(slots, is_open=self._is_open)

    def succeed(self, broker_id: str) -> list[str]:
        self.broker_id = broker_id
        return []

    def run(self, attempt_id: str, ticket: str) -> None:
        with self._lock:
            if self.drops:
                raise Dropped(attempt_id)
            self.given.append((attempt_id, str(ticket)))
            self.busy += 1
            self.most = max(self.most, self.busy)
        self._go_on.wait(PATIENCE)
        with self._lock:
            self.busy -= 1

    def drain(self) -> None:
        self.drained = True
        self.room.close()

    # What a test asks for

    def let_go(self) -> None:
        self._go_on.set()

    @property
    def attempts(self) -> list[str]:
        return [attempt_id for attempt_id, _ in self.given]

    def have(self, batch: Sequence[Launch]) -> bool:
        return set(ids(batch)) <= set(self.attempts)


@contextmanager
def working(
    url: str, *, queues: Sequence[str] = ("default",), threads: int = 2, hands: Hands | None = None
) -> Iterator[Hands]:
    """A worker of Dramatiq's at the broker."""
    hands = hands or Hands()
    broker = make_broker(
        Address.read(url), prefix="runyard", queues=queues, hands=hands, clock=SystemClock(), is_child=False
    )
    worker = Worker(broker, worker_threads=threads)
    worker.start()
    try:
        yield hands
    finally:
        hands.let_go()
        worker.stop(timeout=20_000)  # as runyard worker does
        broker.close()


async def until(ready: Callable[[], object], within: float = PATIENCE) -> None:
    """Return once *ready* answers with something true."""
    deadline = time.monotonic() + within
    while not ready():
        assert time.monotonic() < deadline, "it took too long"
        await asyncio.sleep(0.01)
