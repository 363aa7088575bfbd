"""What an API process without a scheduler needs so that workers can start and finish through it.

An end that frees a slot of a queue admits the next attempt in the same transaction, and this process publishes it: the
scheduler is not asked, so that what it does at that moment is no part of the lag between two tasks.  Everything else,
such as an offer that was lost, stays the schedulers'.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from metastore.commands.admission import Outlet
from metastore.commands.workers import signing_key
from scheduler.door import MetastoreDoor
from scheduler.handover import Handover
from scheduler.metrics import SchedulerMetrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from dag.world import Clock, Entropy
    from executors.base import Door, Executor, Observation
    from metastore.store import Store


class Attendant:
    """A door with the executors that work by queues behind it, and no decisions of its own."""

    def __init__(  # what it needs of the world, each injected
        self,
        *,
        store: Store,
        executors: Sequence[Executor],
        clock: Clock,
        entropy: Entropy,
        registry: CollectorRegistry,
        lease: timedelta,
    ) -> None:
        self._store = store
        self._executors = {executor.name: executor for executor in executors if executor.by_queue}
        self._handover = Handover(store, self._executors)
        self._stopping = False
        self.door = MetastoreDoor(
            store, self._outlets, self._handover.admitted, SchedulerMetrics(registry), lease=lease
        )
        self._context = _Context(clock, entropy, self.door)

    def _outlets(self) -> list[Outlet]:
        return [] if self._stopping else [Outlet(name, None, by_queue=True) for name in self._executors]

    async def start(self) -> None:
        """Start the executors; returns soon, even while their medium is away."""
        self._handover.signing_key = await self._store.write(signing_key)
        for executor in self._executors.values():
            await executor.start(self._context)

    async def stop(self) -> None:
        """Admit nothing more, and let go of the medium."""
        self._stopping = True
        await self._handover.close()
        await asyncio.gather(*(executor.stop(drain=timedelta(0)) for executor in self._executors.values()))


class _Context:
    """What an executor gets that nobody reconciles here."""

    def __init__(self, clock: Clock, entropy: Entropy, door: Door) -> None:
        self.clock = clock
        self.entropy = entropy
        self.door = door

    def report(self, observation: Observation) -> None:
        """A scheduler finds it out by itself."""

    def wake(self) -> None:
        """Nothing is reconciled here."""
