"""Offers: what was put into queues of workers and should have been taken by now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

import structlog

from dag.outcomes import Ended
from metastore.commands.attempts import End, end_attempt
from metastore.commands.offers import take_up
from metastore.queries import offers as queries
from scheduler.decide import sleep_for
from scheduler.lost import NobodyTakes, Offer, OfferAgain, OfferDecision, Seen, Wait, reoffer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from dag.ids import AttemptId
    from dag.world import Clock
    from executors.base import Executor
    from metastore.queries.work import Placed
    from metastore.store import Store
    from scheduler.handover import Handover
    from scheduler.settings import SchedulerSettings

log = structlog.get_logger(__name__)

#: Several schedulers look at the same offers, by clocks that differ: not more often than this, in seconds.
_SHORTEST: Final = 1.0


class Offers:
    """Looks after offers of all executors that work by queues; any scheduler may."""

    def __init__(
        self,
        store: Store,
        executors: Mapping[str, Executor],
        handover: Handover,
        clock: Clock,
        settings: SchedulerSettings,
    ) -> None:
        self._store = store
        self._executors = {name: executor for name, executor in executors.items() if executor.by_queue}
        self._handover = handover
        self._clock = clock
        self._settings = settings

    async def sleep(self, longest: timedelta) -> float:
        """Return how many seconds there is nothing to look at."""
        if not self._executors:
            return longest.total_seconds()
        moment = await self._store.read(queries.next_offer, list(self._executors))
        return max(_SHORTEST, sleep_for(self._clock.now(), moment, longest))

    async def look(self, *, eager: bool) -> None:
        """Look at the offers that are due, at all of them where an executor has come *eager*-ly back."""
        if not self._executors:
            return
        now = self._clock.now()
        found = await self._store.read(queries.offered, now, list(self._executors), everything=eager)
        for name, executor in self._executors.items():
            mine = [one for one in found if one.executor == name]
            if mine:
                await self._look_at(name, executor, mine, eager=eager)

    async def _look_at(self, name: str, executor: Executor, mine: Sequence[Placed], *, eager: bool) -> None:
        observed = await executor.observe([one.id for one in mine])
        seen = {fact.attempt_id: Seen(fact.phase.value, fact.boot_id) for fact in observed}
        idle = await self._store.read(queries.idle_slots, self._clock.now(), name)
        offers = [
            Offer(
                id=one.id,
                queue=one.queue or "default",
                relaunches=one.relaunches,
                deferred=one.deferred_reason is not None,
            )
            for one in mine
        ]
        await self._apply(name, {one.id: one for one in mine}, list(reoffer(offers, seen, idle)), eager=eager)

    async def _apply(
        self, name: str, rows: Mapping[AttemptId, Placed], decisions: Sequence[OfferDecision], *, eager: bool
    ) -> None:
        looks: dict[str, tuple[timedelta, int]] = {}
        again: set[str] = set()
        for decision in decisions:
            match decision:
                case OfferAgain(id=attempt_id, look_after=delay, counts=counts):
                    looks[attempt_id] = (delay, int(counts))
                    again.add(attempt_id)
                case Wait(id=attempt_id, look_after=delay):
                    looks[attempt_id] = (delay, 0)
                case NobodyTakes(id=attempt_id, why=why):
                    end = End(attempt_id=attempt_id, ended=Ended.NEVER_STARTED, cause="never_started", error=why)
                    noted = await self._store.write(end_attempt, end, actor="scheduler")
                    log.warning("nobody takes an attempt", attempt=attempt_id, accepted=noted.accepted, error=why)
                case _:
                    assert_never(decision)
        if not looks:
            return
        mine = await self._store.write(take_up, looks, eager=eager)
        launches = [rows[one] for one in rows if one in again and one in mine]
        if launches:
            log.info("offered again", executor=name, attempts=len(launches))
            self._handover.again(name, launches)
