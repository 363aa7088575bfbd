"""What the outside world gives to decisions: time and chance, injected.

Nothing else in the repository may look at a clock or roll a die (ruff bans the calls), so that a seeded simulation can
run the real decisions and the real SQL.  The real ones are in :mod:`runyard.world`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime


class Clock(Protocol):
    """A clock of this host."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; never goes back, keeps counting while the host sleeps."""
        ...


class Entropy(Protocol):
    """A source of randomness; the real one is fit for secrets."""

    def token(self, size: int) -> bytes:
        """Return *size* random bytes."""
        ...

    def luck(self) -> float:
        """Return a number in [0, 1)."""
        ...
