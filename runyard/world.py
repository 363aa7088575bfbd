"""The real world: the one place that looks at a clock and rolls dice.

Everything else is given a :class:`dag.world.Clock` and a :class:`dag.world.Entropy`.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime


class SystemClock:
    """The clock of this host."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        # CLOCK_MONOTONIC stands still while a laptop sleeps; a lease that expired in the meantime must look expired.
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemEntropy:
    """The kernel's randomness: fit for secrets."""

    def token(self, size: int) -> bytes:
        return os.urandom(size)

    def luck(self) -> float:
        return (int.from_bytes(os.urandom(7), "big") >> 3) / (1 << 53)
