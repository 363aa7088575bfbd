"""The order in which a scheduler's own agents get their leases and their work."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import select

from executors.base import Health, HealthStatus, Observation, Phase
from metastore.models.agents import agents
from metastore.queries import work
from scheduler.handover import Handover
from scheduler.placements import Placements
from scheduler.settings import SchedulerSettings
from tests.metastore.flow import Flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dag.ids import AttemptId
    from executors.base import Context, Door, Executor
    from metastore.store import Store
    from tests.world import FakeClock, SeededEntropy


class Hasty:
    """An executor whose agent brings an end, and asks for more, as soon as it is started."""

    name = "local"
    slots = 1
    by_queue = False
    placed_on = "0" * 32

    def __init__(self, heard: list[str]) -> None:
        self._heard = heard
        self.boot_id = ""
        self.asking: asyncio.Task[Any] | None = None

    async def start(self, context: Context) -> None:
        ended = cast("Any", {"type": "finish"})
        self.asking = asyncio.create_task(cast("Any", context.door.finish(ended, self.placed_on)))
        await asyncio.sleep(0.05)

    def renew(self, _ttl: timedelta | None) -> None:
        self._heard.append("renewed")

    async def stop(self, *, drain: timedelta) -> None: ...

    async def observe(self, batch: Sequence[AttemptId]) -> list[Observation]:
        """An agent that knows of nothing."""
        self._heard.append("observed")
        return [Observation(attempt_id=one, phase=Phase.GONE, boot_id=self.boot_id) for one in batch]

    def health(self) -> Health:
        return Health(HealthStatus.OK)


class Listening:
    """A door that notes who comes."""

    def __init__(self, heard: list[str]) -> None:
        self._heard = heard

    async def finish(self, *_: Any, **__: Any) -> list[Any]:
        self._heard.append("asked for more")
        return []


@pytest.mark.parametrize("seconds", [5, 15, 90])
async def test_an_agent_is_renewed_several_times_a_lease_however_short_that_is(seconds: int) -> None:
    """A fixed pause gave up whatever ran longer than a lease that was set to less."""
    lease = timedelta(seconds=seconds)
    settings = SchedulerSettings(lease=lease)
    assert timedelta(seconds=1) <= settings.renewal <= min(settings.beat, lease / 4)
    assert settings.renewal * 3 < settings.told_lease < lease


@pytest.mark.postgres
async def test_a_copy_of_a_home_waits_until_the_first_one_has_stopped(
    postgres_store: Store, clock: FakeClock, entropy: SeededEntropy
) -> None:
    """Each of the two would take what the other one runs for dead, and start it again."""
    heard: dict[str, list[str]] = {"first": [], "copy": []}
    both = []
    for host, notes in heard.items():
        executors = {"local": cast("Executor", Hasty(notes))}
        settings = SchedulerSettings(host=host, lease=timedelta(seconds=4))
        door, handover = cast("Door", Listening(notes)), Handover(postgres_store, executors)
        both.append(
            Placements(postgres_store, executors, handover, door, clock=clock, entropy=entropy, settings=settings)
        )
    first, copy = both
    await first.start()
    await copy.start()
    await copy.renew()
    assert heard["copy"] == []
    assert (first.is_ours, copy.is_ours) == (True, False)
    assert copy.wrong() == ["the host first has the agent of this home: nothing is started here"]

    await first.stop(timedelta(0))
    await copy.renew()
    assert heard["copy"][0] == "renewed"
    assert (copy.is_ours, copy.wrong()) == (True, [])


@pytest.mark.postgres
async def test_who_comes_back_to_an_agent_that_a_copy_has_judges_nothing(
    postgres_store: Store, clock: FakeClock, entropy: SeededEntropy
) -> None:
    """Its own agent knows nothing of what the copy runs, which is no proof of its death."""
    settings = SchedulerSettings(lease=timedelta(seconds=3), safety_poll=timedelta(seconds=0.1))
    heard: list[str] = []

    def service(host: str) -> Placements:
        hasty = Hasty(heard if host == "first" else [])
        hasty.boot_id = f"boot of {host}"
        executors = {"local": cast("Executor", hasty)}
        handover, its = Handover(postgres_store, executors), replace(settings, host=host)
        door = cast("Door", Listening([]))
        return Placements(postgres_store, executors, handover, door, clock=clock, entropy=entropy, settings=its)

    first, copy = service("first"), service("copy")
    await first.start()
    await asyncio.sleep(3.1)  # nothing is heard of it for a lease
    await copy.start()
    assert copy.is_ours
    flow = Flow(postgres_store, clock, agent=Hasty.placed_on, boot="boot of copy")
    await flow.put({"a": {}})
    _, [one] = await flow.trigger()
    await flow.start(one.attempt_id)
    (placed,) = await postgres_store.read(work.placed, [Hasty.placed_on])

    heard.clear()
    await first._lose(placed)  # a look that began before it knew
    await first._put_back(placed)
    await first.renew()
    assert not first.is_ours
    await first.reconcile()
    assert heard == []
    await first.stop(timedelta(0))
    assert [after.state for after in await postgres_store.read(work.placed, [Hasty.placed_on])] == ["running"]
    await copy._lose(placed)
    assert await postgres_store.read(work.placed, [Hasty.placed_on]) == []
    await flow.check()


async def test_nothing_is_given_to_an_agent_before_it_has_its_lease(
    store: Store, clock: FakeClock, entropy: SeededEntropy
) -> None:
    """Else it would not stop what it runs when its last lease turns out to be over (simulation, seed 3009335)."""
    heard: list[str] = []
    hasty = Hasty(heard)
    executors = {"local": cast("Executor", hasty)}
    placements = Placements(
        store,
        executors,
        Handover(store, executors),
        cast("Door", Listening(heard)),
        clock=clock,
        entropy=entropy,
        settings=SchedulerSettings(),
    )

    await placements.start()
    assert hasty.asking is not None
    await hasty.asking

    assert heard == ["renewed", "asked for more"]


class Away:
    """An executor of queues, as quiet as one can be."""

    name = "dramatiq"
    slots = None
    by_queue = True
    placed_on = None

    async def start(self, context: Context) -> None:
        """There is nothing to start."""

    def renew(self, _ttl: timedelta | None) -> None:
        """There is nothing to renew."""

    def health(self) -> Health:
        return Health(HealthStatus.OK)


@pytest.mark.postgres
async def test_executors_without_an_agent_stay_known_to_other_schedulers(
    store: Store, clock: FakeClock, entropy: SeededEntropy
) -> None:
    """No lease is renewed for them: they would be gone for others soon, who would take what waits for them."""
    if store.dialect != "postgresql":
        pytest.skip("SQLite has one service")
    executors = {"dramatiq": cast("Executor", Away())}
    placements = Placements(
        store,
        executors,
        Handover(store, executors),
        cast("Door", Listening([])),
        clock=clock,
        entropy=entropy,
        settings=SchedulerSettings(host="here"),
    )
    await placements.start()

    async def seen_after(seconds: int) -> Any:
        clock.move(timedelta(seconds=seconds))
        placements._context.wake()
        await placements.reconcile()
        return await store.read(lambda conn: conn.execute(select(agents.c.seen_at)).scalar_one())

    first = await seen_after(0)
    assert await seen_after(5) == first
    assert await seen_after(6) > first
