"""The scheduler's way to the simulated broker: the product's executor of queues, without its thread."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from executors.queues.executor import QueueExecutor
from executors.queues.medium import Away, Where
from tests.simulation.hosts import here

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dag.world import Clock
    from executors.queues.medium import Parcel
    from tests.simulation.broker import Broker

T = TypeVar("T")

_IDLE = 5.0


@dataclass(frozen=True, slots=True)
class _Shown:
    shown: str = "sim://broker"


class SimMedium:
    """A broker as the product's executor uses it."""

    def __init__(self, broker: Broker) -> None:
        self.address: Any = _Shown()
        self.broker = broker

    def probe(self) -> None:
        if self.broker.is_away(here()):
            raise Away("connection refused")

    def publish(self, parcels: Sequence[Parcel], has_time: Callable[[], bool]) -> Mapping[str, str]:
        self.probe()
        if not has_time():
            return {parcel.attempt_id: "there was no time" for parcel in parcels}
        self.broker.publish(parcels)
        return {}

    def locate(self, attempt_ids: Sequence[str]) -> Mapping[str, Where]:
        self.probe()
        if not self.broker.tells:
            return dict.fromkeys(attempt_ids, Where.UNSURE)
        return {one: Where.THERE if self.broker.has(one) else Where.NOT_THERE for one in attempt_ids}

    def forget(self, attempt_ids: Sequence[str]) -> None:
        self.probe()
        self.broker.forget(attempt_ids)

    def close(self) -> None:
        """There is nothing to close."""


class SimCourier:
    """What stands for :class:`executors.queues.courier.Courier`: the same promises, in virtual time."""

    def __init__(self, medium: SimMedium, *, name: str, clock: Clock, on_return: Callable[[], None]) -> None:
        del name, clock
        self._medium = medium
        self._process = here()
        self._weather = self._process.site.weather
        self._on_return = on_return
        self._is_known = False
        self._why: str | None = "the broker was not reached yet"
        self._probing = self._process.spawn(self._probe(), name="courier")

    @property
    def why_away(self) -> str | None:
        return self._why

    async def ask(self, work: Callable[[], T], budget: float) -> T:
        if self._is_known and self._why is not None:
            raise Away(self._why)
        dice = self._process.dice
        if self._weather.strikes("broker.slow"):
            await asyncio.sleep(budget)
            # Nobody waits any more, and it may be done all the same.
            if dice.random() < 0.5 and not self._medium.broker.is_away(self._process):
                work()
            self._note("it does not answer in time")
            raise Away("it does not answer in time")
        await asyncio.sleep(0.0005 + 0.003 * dice.random())
        try:
            result = work()
        except Away as error:
            self._note(str(error))
            raise
        self._note(None)
        await asyncio.sleep(0.0005 + 0.003 * dice.random())
        return result

    async def stop(self) -> None:
        self._probing.cancel()

    async def _probe(self) -> None:
        while True:
            try:
                self._medium.probe()
            except Away as error:
                self._weather.count("broker.away")
                self._note(str(error))
            else:
                self._note(None)
            await asyncio.sleep(_IDLE if self._why is None else 0.25 + self._process.dice.random() * 2)

    def _note(self, why: str | None) -> None:
        was = self._why
        self._is_known = True
        self._why = why
        if was is not None and why is None:
            self._on_return()


def queue_executor(broker: Broker) -> QueueExecutor:
    """Return the product's executor over *broker*."""
    return QueueExecutor("dramatiq", SimMedium(broker), observable=broker.tells)
