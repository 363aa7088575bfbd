"""Chance by name, and the clocks of hosts: all that differs from seed to seed comes from here."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.simulation.loop import SimLoop

#: The true time at which every simulation begins.
EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Chance:
    """Streams of randomness, each with a name of its own.

    What one part draws does not move what another gets, so that a schedule without one of its faults is still nearly
    the same schedule.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")  # noqa: S311  # repeatable is the point


class SimEntropy:
    """The randomness of one process."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def token(self, size: int) -> bytes:
        return self._dice.randbytes(size)

    def luck(self) -> float:
        return self._dice.random()


class HostClock:
    """The clock of one host: its wall clock can be set to anything, what it counts goes on evenly."""

    def __init__(self, loop: SimLoop, boot: float) -> None:
        self._loop = loop
        self._boot = boot
        #: What somebody, or a broken NTP, has added to the true time.
        self.offset = timedelta(0)
        self._stands_at: datetime | None = None

    def now(self) -> datetime:
        return self._stands_at or true_time(self._loop) + self.offset

    def stand(self) -> None:
        """Show the same moment from here on."""
        self._stands_at = self.now()

    def go_on(self) -> None:
        """Go on from where it stands."""
        if self._stands_at is not None:
            self.offset, self._stands_at = self._stands_at - true_time(self._loop), None

    def monotonic(self) -> float:
        return self._boot + self._loop.time()


def true_time(loop: SimLoop) -> datetime:
    """Return what an unfailing clock shows: the database's."""
    return EPOCH + timedelta(microseconds=round(loop.time() * 1_000_000))
