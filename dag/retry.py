"""How long to wait before a failed task is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

#: Where the backoff of a task without ``max_retry_delay`` stops growing (or at its own delay, if that is longer).
DEFAULT_CAP: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The pauses between the tries of one task."""

    #: Before the second try.
    delay: timedelta = timedelta(seconds=30)
    #: Twice as long before every further one.
    backoff: bool = False
    #: Never longer than this.
    max_delay: timedelta | None = None
    #: The part of each pause that is left to chance, 0 to 1: at 0.5 it is something between half of it and all of it.
    #: It only shortens, so *max_delay* stays true, and a herd that waits at the cap is scattered too.
    jitter: float = 0.0


def delay_before(policy: RetryPolicy, failures: int, luck: float) -> timedelta:
    """Return the pause after the *failures*-th failure (from 1), given *luck* in [0, 1)."""
    pause = _grown(policy, failures)
    return pause - pause * (policy.jitter * luck)


def _grown(policy: RetryPolicy, failures: int) -> timedelta:
    cap = max(DEFAULT_CAP, policy.delay) if policy.max_delay is None else policy.max_delay
    doublings = max(0, failures - 1) if policy.backoff else 0
    if not policy.delay:
        return policy.delay
    # Compared by their ratio: delay * 2**n would overflow a timedelta long before n is worth counting.
    if doublings >= (cap // policy.delay).bit_length():
        return cap
    return min(cap, policy.delay * (1 << doublings))
