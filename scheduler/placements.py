"""What this scheduler's executors hold: adoption after a restart, directives to stop, and the lease on it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, assert_never

import structlog

from dag.errors import Unavailable
from dag.outcomes import Ended
from metastore.commands.agents import beat, expired_agents, forget_lease, register_agent, release_agent
from metastore.commands.attempts import End, end_attempt
from metastore.queries import work
from scheduler.aside import set_aside
from scheduler.decide import sleep_for
from scheduler.door import stop_reason
from scheduler.lost import GiveUp, Placement, PutBack, Relaunch, Seen, Stop, reconcile
from scheduler.offers import Offers
from scheduler.strays import Strays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dag.ids import AttemptId
    from dag.world import Clock, Entropy
    from executors.base import Door, Executor, Observation
    from metastore.commands.attempts import EndNoted
    from metastore.queries.work import Placed, Stopping
    from metastore.store import Store
    from scheduler.handover import Handover
    from scheduler.settings import SchedulerSettings
    from worker.protocol import Finish, Message, Start

#: The lease of another agent is looked at when it runs out, by this host's clock; what that is off is made up for here.
_SHORTEST_BEAT: Final = 1.0
_COPIED: Final = "if this home is a copy of another host's, stop the service, remove agent/id in it, and start again"
_NOT_OURS: Final = "the host {host} has the agent of this home: nothing is started here"

log = structlog.get_logger(__name__)


class _ShutDoor:
    """The door, shut until our agents have their leases.

    A supervisor that has no lease yet does not end what it runs when the last one of its agent turns out to be over.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._opened = asyncio.Event()

    def open(self) -> None:
        self._opened.set()

    async def start(self, message: Start, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        await self._opened.wait()
        return await self._door.start(message, placed_on, key_hash=key_hash)

    async def finish(self, message: Finish, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        await self._opened.wait()
        return await self._door.finish(message, placed_on, key_hash=key_hash)


class _Context:
    """What an executor gets from the scheduler."""

    def __init__(self, clock: Clock, entropy: Entropy, door: Door) -> None:
        self.clock = clock
        self.entropy = entropy
        self.door = door
        self.woken = asyncio.Event()
        #: An executor itself asked for a look: it has come back.
        self.eager = False

    def report(self, observation: Observation) -> None:
        """Facts are read again with ``observe``: a report only says that it is time to."""
        del observation
        self.woken.set()

    def wake(self) -> None:
        self.eager = True
        self.woken.set()


class Placements:
    """Keeps placements and metastore in step."""

    def __init__(  # what it needs of the world, each injected
        self,
        store: Store,
        executors: Mapping[str, Executor],
        handover: Handover,
        door: Door,
        *,
        clock: Clock,
        entropy: Entropy,
        settings: SchedulerSettings,
    ) -> None:
        self._store = store
        self._executors = executors
        self._handover = handover
        self._door = _ShutDoor(door)
        self._context = _Context(clock, entropy, self._door)
        self._clock = clock
        self._settings = settings
        self._reminder = settings.safety_poll.total_seconds() / 2
        self._stops = store.subscribe("stop")
        self._told: dict[str, list[dict[str, Any]]] = {}
        self._told_at: dict[str, float] = {}
        #: Of our agents, those that another host has, which is named: this home, or the other one, is a copy.
        self._others: dict[str, str] = {}
        self._leased = store.dialect == "postgresql"
        self._offers = Offers(store, executors, handover, clock, settings)
        self._look_at = 0.0
        self._strays = Strays(store, executors, clock, settings)

    @property
    def _places(self) -> list[str]:
        return sorted({executor.placed_on for executor in self._executors.values() if executor.placed_on})

    def _keeper(self, one: Placed | Stopping) -> str:
        """Return who looks after what lies at one of our places: the executor that put it there, if it is configured.

        Else another one of that place: it asks the same agent (0028).
        """
        own = self._executors.get(one.executor)
        if own is not None and own.placed_on == one.placed_on:
            return own.name
        return next(name for name, executor in self._executors.items() if executor.placed_on == one.placed_on)

    @property
    def is_ours(self) -> bool:
        """Whether we may judge and give out what lies at our agents: no other host has them."""
        return not self._others

    def wrong(self) -> list[str]:
        """Return what keeps our agents from working."""
        return sorted({_NOT_OURS.format(host=host) for host in self._others.values()})

    def _is_adopted(self, one: Placed) -> bool:
        return one.executor not in self._executors or self._executors[one.executor].slots == 0

    async def start(self) -> None:
        """Start the executors and make their agents and slots known.

        Where another host has an agent of ours, it is asked for again with each renewal.
        """
        for executor in self._executors.values():
            await executor.start(self._context)
        await self._register()
        self._context.wake()

    async def stop(self, drain: timedelta) -> None:
        """Stop the executors, all at once, then put back what was queued for them and nobody started."""
        await asyncio.gather(*(executor.stop(drain=drain) for executor in self._executors.values()))
        self._stops.close()
        for one in await self._store.read(work.placed, self._places):
            if one.state == "queued":
                await self._put_back(one)
        for place in self._places:
            await self._store.write(release_agent, place, self._settings.host)

    async def _put_back(self, one: Placed) -> None:
        await self._end(one, End(attempt_id=one.id, ended=Ended.DRAINED, cause="drained"))

    async def _end(self, one: Placed, end: End) -> EndNoted:
        """Conclude *end* of what lies at an agent of ours, while that is ours."""
        assert one.placed_on is not None  # noqa: S101  # it was found by its place
        held_by = (one.placed_on, self._settings.host)
        return await self._store.write(end_attempt, end, actor="scheduler", held_by=held_by)

    async def _register(self, *, only_news: bool = False) -> None:
        """Make agents and slots known, with how their executors are; find out whether the agents are ours."""
        asked_at = self._clock.monotonic()
        unplaced = (
            [f"scheduler:{self._settings.host}"] if any(not e.placed_on for e in self._executors.values()) else []
        )
        for place in [*self._places, *unplaced]:
            executors = [self._describe(e) for e in self._executors.values() if (e.placed_on or unplaced[0]) == place]
            # Without a lease that is renewed, this is how others know that these executors are there.
            late = self._leased and place in unplaced and self._told_at.get(place, 0.0) < asked_at - self._reminder
            if only_news and (place in self._others or (self._told.get(place) == executors and not late)):
                continue
            lease = self._settings.lease if self._leased and place not in unplaced else None
            holder = await self._store.write(
                register_agent, place, host=self._settings.host, executors=executors, lease=lease
            )
            if holder is not None:
                # Its tasks are not ours to judge.  After a crash it is over with the lease; a copy has to go.
                if self._others.get(place) != holder:
                    log.error("another host has the agent of this home", agent=place, host=holder, hint=_COPIED)
                self._others[place] = holder
                continue
            if self._others.pop(place, None) is not None:
                log.info("the agent of this home is ours", agent=place)
            self._told[place], self._told_at[place] = executors, asked_at
        if self.is_ours and not only_news:
            self._grant(asked_at)
            self._door.open()

    def _describe(self, executor: Executor) -> dict[str, Any]:
        health = executor.health()
        return {
            "name": executor.name,
            "slots": executor.slots,
            "placed": executor.placed_on is not None,
            "by_queue": executor.by_queue,
            "status": str(health.status),
            "detail": health.detail,
        }

    def _grant(self, asked_at: float) -> None:
        """Tell supervisors how long they may go on, counted from before the renewal was asked for."""
        ttl = None
        if self._leased:
            ttl = self._settings.told_lease - timedelta(seconds=self._clock.monotonic() - asked_at)
        for executor in self._executors.values():
            executor.renew(ttl)

    async def renew(self) -> None:
        """Renew the lease of our agents, then give up what others and workers let expire."""
        await self._register(only_news=True)  # here as well: what else a round does may take longer than others wait
        if self._leased:
            asked_at = self._clock.monotonic()
            host, lease = self._settings.host, self._settings.lease
            known = [await self._store.write(beat, place, host, lease) for place in self._places]
            if all(known):
                self._grant(asked_at)
            else:
                await self._register()
        next_expiry = await self._store.read(work.next_expiry)
        # Not compared with this host's clock: what is over, the database says.  With no lease at all as well: what was
        # on its way to the last one when it was given up is found there.
        if self._leased or next_expiry is not None:
            for agent_id in await self._store.write(expired_agents, self._settings.lease):
                await self._give_up(agent_id)
            next_expiry = await self._store.read(work.next_expiry)
        soon = sleep_for(self._clock.now(), next_expiry, self._settings.renewal)
        await asyncio.sleep(max(soon, _SHORTEST_BEAT))

    async def _give_up(self, agent_id: str) -> None:
        for one in await self._store.read(work.placed, [agent_id]):
            ended = Ended.LOST if one.state == "running" else Ended.NEVER_STARTED
            end = End(attempt_id=one.id, ended=ended, cause="worker_lost", error=f"the lease of {agent_id} ran out")
            await self._store.write(
                end_attempt, end, actor="scheduler", expired_agent=agent_id, lease=self._settings.lease
            )
        await self._store.write(forget_lease, agent_id, self._settings.lease)
        log.warning("agent given up", agent=agent_id)

    async def reconcile(self) -> None:
        """Wait for a reason or the safety poll, then put placements and metastore in step."""
        try:
            async with asyncio.timeout(await self._offers.sleep(self._settings.safety_poll)):
                await self._context.woken.wait()
        except TimeoutError:
            pass
        self._context.woken.clear()
        eager, self._context.eager = self._context.eager, False
        try:
            await self._round(eager=eager)
        except Unavailable:
            self._strays.hold_off()
            raise

    async def _round(self, *, eager: bool) -> None:
        await self._register(only_news=True)
        found = await self._store.read(work.placed, self._places) if self.is_ours else []
        for name in self._executors:
            mine = [one for one in found if self._keeper(one) == name]
            if mine:
                await self._reconcile(name, mine, eager=eager)
        await self._offers.look(eager=eager)
        if self._clock.monotonic() >= self._look_at:  # not with each end that is reported here
            self._look_at = self._clock.monotonic() + self._reminder
            await self._strays.look()

    def look_after(self, delay: timedelta) -> None:
        """Look again after *delay*: an executor deferred something for that long."""
        asyncio.get_running_loop().call_later(delay.total_seconds(), self._context.woken.set)

    async def _reconcile(self, name: str, placed: Sequence[Placed], *, eager: bool) -> None:
        observed = await self._executors[name].observe([one.id for one in placed])
        seen = {fact.attempt_id: Seen(fact.phase.value, fact.boot_id) for fact in observed}
        known = [
            Placement(
                id=one.id,
                state=one.state,
                boot_id=one.boot_id,
                launch_after=one.launch_after,
                stop_reason=one.stop_reason,
                adopted=self._is_adopted(one),
            )
            for one in placed
        ]
        rows = {one.id: one for one in placed}
        launches: list[Placed] = []
        stops: dict[str, list[AttemptId]] = {}
        for decision in reconcile(known, seen, self._clock.now(), eager=eager):
            match decision:
                case Relaunch(attempt_id):
                    launches.append(rows[attempt_id])
                case Stop(attempt_id, reason):
                    stops.setdefault(reason, []).append(attempt_id)
                case GiveUp(attempt_id):
                    with set_aside("an attempt cannot be ended", attempt=attempt_id):
                        await self._lose(rows[attempt_id])
                case PutBack(attempt_id):
                    with set_aside("an attempt cannot be ended", attempt=attempt_id):
                        await self._put_back(rows[attempt_id])
                case _:
                    assert_never(decision)
        if launches:
            self._handover.again(name, launches)
        for reason, batch in stops.items():
            await self._handover.stop(name, batch, stop_reason(reason))

    async def _lose(self, one: Placed) -> None:
        error = "its supervisor died, and everything that it ran with it"
        noted = await self._end(one, End(attempt_id=one.id, ended=Ended.LOST, cause="worker_lost", error=error))
        log.warning("attempt lost", attempt=one.id, accepted=noted.accepted)

    async def deliver_stops(self) -> None:
        """Wait for somebody to ask for a stop, then pass it on."""
        await self._stops.wait(self._settings.safety_poll.total_seconds())
        if not self.is_ours:
            return
        batches: dict[tuple[str, str], list[AttemptId]] = {}
        for one in await self._store.read(work.stopping, self._places):
            batches.setdefault((self._keeper(one), one.reason), []).append(one.id)
        for (name, reason), batch in batches.items():
            await self._handover.stop(name, batch, stop_reason(reason))
