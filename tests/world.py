"""The outside world as tests want it: a clock that obeys, and chance that repeats."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._at = at
        self._elapsed = 0.0

    def now(self) -> datetime:
        return self._at

    def monotonic(self) -> float:
        return self._elapsed

    def move(self, by: timedelta) -> None:
        """Let *by* pass."""
        self._at += by
        self._elapsed += by.total_seconds()

    def jump(self, by: timedelta) -> None:
        """Set the wall clock by hand, as an administrator does; no time passes."""
        self._at += by


class SeededEntropy:
    """Randomness that is the same in every run of a test."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)  # noqa: S311  # repeatable is the point

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def luck(self) -> float:
        return self._random.random()
