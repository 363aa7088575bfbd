"""A broker that keeps no promise it need not keep: messages come twice, late, in another order, or not at all."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from executors.queues.medium import Parcel
    from tests.simulation.hosts import SimProcess, Site

#: After which silence of a consumer its messages are somebody else's.
_VISIBILITY: Final = 30.0


@dataclass(slots=True, eq=False)
class Parked:
    """A message at the broker."""

    number: int
    attempt_id: str
    ticket: str
    priority: int
    #: Not delivered before.
    visible_at: float = 0.0


@dataclass(slots=True, eq=False)
class Consumer:
    """A process that takes messages of some queues."""

    process: SimProcess
    queues: Sequence[str]
    wake: Callable[[], None]
    unacked: dict[int, tuple[str, Parked]] = field(default_factory=dict)
    heard_at: float = 0.0
    is_gone: bool = False


class Broker:
    """All queues."""

    def __init__(self, site: Site, dice: random.Random, *, tells: bool) -> None:
        self._site = site
        self._loop = site.loop
        self._dice = dice
        self._weather = site.weather
        #: Whether it can say which messages it has.
        self.tells = tells
        self._queues: dict[str, list[Parked]] = {}
        self._consumers: list[Consumer] = []
        self._numbers = itertools.count(1)

    def is_away(self, process: SimProcess) -> bool:
        """Whether there is none, or no way to it from where *process* is."""
        if self._weather.is_down(f"broker:{process.host}"):
            self._weather.count("broker.cut")
            return True
        return self._weather.is_down("broker")

    # The scheduler's side

    def publish(self, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            if self._weather.strikes("broker.lost"):
                continue
            self._put(parcel.queue, self._parked(parcel))
            if self._weather.strikes("broker.twice"):
                for _ in range(self._dice.randint(1, 4)):
                    late = self._parked(parcel)
                    late.visible_at = self._loop.time() + self._dice.random() * 60
                    self._put(parcel.queue, late)

    def _parked(self, parcel: Parcel) -> Parked:
        message = Parked(next(self._numbers), parcel.attempt_id, parcel.ticket, parcel.priority)
        if self._weather.strikes("broker.late"):
            message.visible_at = self._loop.time() + self._dice.random() * 120
        return message

    def has(self, attempt_id: str) -> bool:
        parked = any(one.attempt_id == attempt_id for queue in self._queues.values() for one in queue)
        return parked or any(
            one.attempt_id == attempt_id for each in self._consumers for _, one in each.unacked.values()
        )

    def forget(self, attempt_ids: Sequence[str]) -> None:
        for queue in self._queues.values():
            queue[:] = [one for one in queue if one.attempt_id not in attempt_ids]

    # The workers' side

    def attach(self, consumer: Consumer) -> None:
        """Deliver to *consumer*; when its process dies, what it has not acknowledged is delivered again."""
        self._consumers.append(consumer)
        consumer.heard_at = self._loop.time()
        consumer.process.on_death.append(partial(self._miss, consumer))

    def _miss(self, consumer: Consumer) -> None:
        """Notice after a while that a consumer is gone."""
        pause = 0.5 + 5 * self._dice.random()
        self._loop.call_later(pause, self.detach, consumer, context=self._site.context)

    def detach(self, consumer: Consumer) -> None:
        if not consumer.is_gone:
            consumer.is_gone = True
            self._consumers.remove(consumer)
            self._requeue(consumer)

    def hear(self, consumer: Consumer) -> None:
        """Note that a consumer is there, if that can be heard."""
        if not self._weather.is_down(f"broker:{consumer.process.host}"):
            consumer.heard_at = self._loop.time()

    def take(self, consumer: Consumer) -> Parked | None:
        """Return the next message for *consumer*; None: nothing, or nobody is there."""
        self._rescue()
        self.hear(consumer)
        if self.is_away(consumer.process):
            return None
        now = self._loop.time()
        for name in self._dice.sample(list(consumer.queues), len(consumer.queues)):
            queue = self._queues.get(name, [])
            there = [one for one in queue if one.visible_at <= now]
            if not there:
                continue
            shuffled = self._weather.strikes("broker.disorder")
            found = self._dice.choice(there) if shuffled else min(there, key=lambda one: (-one.priority, one.number))
            queue.remove(found)
            consumer.unacked[found.number] = (name, found)
            return found
        return None

    def acknowledge(self, consumer: Consumer, message: Parked) -> None:
        if not self.is_away(consumer.process) and not self._weather.strikes("broker.ack_lost"):
            consumer.unacked.pop(message.number, None)

    def put_back(self, consumer: Consumer, message: Parked) -> None:
        found = consumer.unacked.pop(message.number, None)
        if found is not None:
            self._put(*found)

    def _rescue(self) -> None:
        """Deliver again what consumers hold that have not been heard of for long: frozen, or cut off."""
        for consumer in self._consumers:
            if consumer.unacked and self._loop.time() - consumer.heard_at > _VISIBILITY:
                self._weather.count("broker.redelivered")
                self._requeue(consumer)

    def _requeue(self, consumer: Consumer) -> None:
        for name, message in consumer.unacked.values():
            self._put(name, message)
        consumer.unacked.clear()

    def _put(self, name: str, message: Parked) -> None:
        self._queues.setdefault(name, []).append(message)
        delay = max(0.0, message.visible_at - self._loop.time())
        for consumer in self._consumers:
            if name in consumer.queues:
                consumer.process.later(delay + 0.001 + 0.004 * self._dice.random(), consumer.wake)

    # What happens to it

    def flush(self) -> None:
        """Everything is gone, as after a restart without a disk."""
        self._queues.clear()
        for consumer in self._consumers:
            consumer.unacked.clear()

    def restart(self) -> None:
        """Connections break: what was not acknowledged is delivered again."""
        for consumer in self._consumers:
            self._requeue(consumer)
