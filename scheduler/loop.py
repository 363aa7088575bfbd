"""The shell around the decisions: wake, read, decide, apply, act.

It wakes by hints (in-process, or NOTIFY) and by the next due time; with every hint lost the safety poll still finds all
that is to be done.  Any number of schedulers may run on one Postgres: every step is a compare-and-set.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, assert_never

import structlog

from dag.errors import Unavailable
from metastore.commands.admission import Outlet, admit_ready
from metastore.commands.advance import advance_run
from metastore.commands.heal import quarantine_run
from metastore.commands.materialise import materialise, start_run
from metastore.commands.stopping import time_out_run
from metastore.commands.workers import signing_key
from metastore.queries import offers, work
from scheduler.decide import Admit, Advance, Materialise, Snapshot, StartRun, TimeOut, decide, sleep_for
from scheduler.door import MetastoreDoor
from scheduler.handover import Handover
from scheduler.metrics import SchedulerMetrics
from scheduler.placements import Placements
from scheduler.safety import Safety

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from prometheus_client import CollectorRegistry

    from dag.world import Clock, Entropy
    from executors.base import Executor
    from metastore.commands.admission import Admitted
    from metastore.store import Store
    from scheduler.decide import Decision
    from scheduler.settings import SchedulerSettings

log = structlog.get_logger(__name__)

#: How many decisions are applied at once; they are about different runs.
_AT_ONCE: Final = 8
#: How soon to look again, doubling, when a slot is free beside ready instances and none of them could be had.
_FIRST_PATIENCE: Final = timedelta(milliseconds=20)
#: How long a part waits after an error of its own before it goes on.
_AFTER_ERROR: Final = 1.0
#: Parts that come round by themselves, however little there is to do.
_REGULAR: Final = ("work", "safety")
#: How many of their longest sleeps they may be late before the scheduler is not well.
_LATE: Final = 4


class Scheduler:
    """The daemon.  ``start`` returns once executors and parts are up; ``stop`` drains."""

    def __init__(  # what it needs of the world, each injected
        self,
        *,
        store: Store,
        executors: Sequence[Executor],
        clock: Clock,
        entropy: Entropy,
        registry: CollectorRegistry,
        settings: SchedulerSettings,
    ) -> None:
        if not executors:
            raise ValueError("a scheduler needs at least one executor")
        self._store = store
        self._executors = {executor.name: executor for executor in executors}
        self._default = executors[0].name
        self._clock = clock
        self._settings = settings
        self._metrics = SchedulerMetrics(registry)
        self._handover = Handover(store, self._executors)
        #: What supervisors start and finish through.
        self.door = MetastoreDoor(store, self.outlets, self._handover.admitted, self._metrics, lease=settings.lease)
        self._placements = Placements(
            store, self._executors, self._handover, self.door, clock=clock, entropy=entropy, settings=settings
        )
        self._handover.deferred = self._placements.look_after
        self._safety = Safety(store, clock, self._metrics, settings)
        self._queueing = [name for name, executor in self._executors.items() if executor.by_queue]
        self._placing = [name for name in self._executors if name not in self._queueing]
        self._wakes = store.subscribe("runs", "due", "ready")
        self._stopping = False
        self._patience = _FIRST_PATIENCE
        self._came_round: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._passes: set[asyncio.Task[None]] = set()

    def outlets(self) -> list[Outlet]:
        """Return the places this scheduler may admit to; none once it stops, no agent that another host has."""
        if self._stopping:
            return []
        return [
            Outlet(executor.name, executor.placed_on, by_queue=executor.by_queue)
            for executor in self._executors.values()
            if executor.placed_on is None or self._placements.is_ours
        ]

    async def start(self) -> None:
        """Start the executors and the parts of the loop."""
        self._handover.signing_key = await self._store.write(signing_key)
        await self._placements.start()
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "work": self._work,
            "reconcile": self._placements.reconcile,
            "stop": self._placements.deliver_stops,
            "safety": self._safety.poll,
            "lease": self._placements.renew,
        }
        self._came_round = dict.fromkeys(_REGULAR, self._clock.monotonic())
        self._tasks = [
            asyncio.create_task(self._keep(name, part), name=f"scheduler:{name}") for name, part in parts.items()
        ]

    async def stop(self, *, drain: timedelta) -> None:
        """Stop deciding, then the executors; attempts that do not end within *drain* are requeued without cost."""
        self._stopping = True
        for task in self._tasks:
            if task.get_name() in ("scheduler:work", "scheduler:safety", "scheduler:reconcile"):
                task.cancel()
        await self._handover.close()
        await self._placements.stop(drain)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._wakes.close()

    async def run(self) -> None:
        """Start, and go on until cancelled."""
        await self.start()
        await asyncio.gather(*self._tasks)

    def overdue(self) -> list[str]:
        """Return the parts that do not come round: the metastore is away, something hangs, an agent is not ours."""
        now = self._clock.monotonic()
        late = _LATE * max(self._settings.longest_sleep, self._settings.safety_poll).total_seconds()
        lagging = [(name, now - at) for name, at in self._came_round.items() if now - at > late]
        return [*(f"{name}: no round for {seconds:.0f} s" for name, seconds in lagging), *self._placements.wrong()]

    async def _keep(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run one part again and again; an error of it is logged and stays its own."""
        while True:
            try:
                await part()
                if name in _REGULAR:
                    self._came_round[name] = self._clock.monotonic()
            except Unavailable as error:
                log.warning("metastore unavailable", part=name, error=str(error))
                await asyncio.sleep(_AFTER_ERROR)
            except Exception:
                # The parts must outlive any single error, or one bad row would stop the whole service.
                self._metrics.errors.labels(name).inc()
                log.exception("part failed", part=name)
                await asyncio.sleep(_AFTER_ERROR)

    async def _work(self) -> None:
        """One pass: read, decide, apply; then sleep until a hint or the next due time."""
        with self._metrics.loop_seconds.time():
            now = self._clock.now()
            snapshot = await self._store.read(_snapshot, now, self._placing, self._queueing)
            decisions = list(decide(snapshot))
            for first in range(0, len(decisions), _AT_ONCE):
                await asyncio.gather(*(self._apply(decision) for decision in decisions[first : first + _AT_ONCE]))
        if decisions:
            now = self._clock.now()
        next_due = await self._store.read(work.next_due, now)
        longest = await self._look_again_after() if snapshot.ready else self._settings.longest_sleep
        await self._wakes.wait(sleep_for(now, next_due, longest))

    async def _look_again_after(self) -> timedelta:
        """Return how long to sleep beside ready instances: not long when a slot of ours is free as well.

        Admission passes over runs that somebody else holds at that moment, and who holds them may have no slot.
        """
        slots = [(outlet.executor, outlet.slots_key) for outlet in self.outlets() if not outlet.by_queue]
        if await self._store.read(work.idle_beside_ready, slots) or (
            self._queueing and await self._store.read(offers.executors_with_offers, self._queueing)
        ):
            self._patience = min(self._patience * 2, self._settings.longest_sleep)
            return self._patience
        self._patience = _FIRST_PATIENCE
        return self._settings.longest_sleep

    async def _apply(self, decision: Decision) -> None:
        """Apply one decision in its own transaction; a run that fails is set aside, the rest goes on."""
        admitted: list[Admitted] = []
        write = self._store.write
        try:
            match decision:
                case TimeOut(run):
                    await write(time_out_run, run)
                case Advance(run):
                    await write(advance_run, run)
                case Materialise(run):
                    admitted = await write(materialise, run, self._default, self.outlets())
                case StartRun(run):
                    admitted = await write(start_run, run, self._default, self.outlets())
                    self._metrics.runs_started.inc()
                case Admit():
                    admitted = await write(admit_ready, self.outlets())
                case _:
                    assert_never(decision)
        except Unavailable:
            raise
        except Exception as error:
            # One bad row, spec or message is set aside within a pass (I-L4): whatever it was, the others must go on.
            if isinstance(decision, Admit):
                raise
            log.exception("run set aside", run=decision.run, decision=type(decision).__name__)
            self._metrics.quarantines.inc()
            await write(quarantine_run, decision.run, f"{type(error).__name__}: {error}")
            return
        self._handover.admitted(admitted)


def _snapshot(conn: Any, now: Any, placing: Sequence[str], queueing: Sequence[str]) -> Snapshot:
    return Snapshot(
        overdue=work.overdue_runs(conn, now),
        unmaterialised=work.unmaterialised_runs(conn, now),
        due=work.due_runs(conn, now),
        startable=work.startable_runs(conn, now),
        ready=[*work.executors_with_ready(conn, placing), *offers.executors_with_offers(conn, queueing)],
    )
