from __future__ import annotations

import asyncio

from worker import linux
from worker.fence import Fence


async def _fallen(fence: Fence, falls: list[float]) -> bool:
    fence.watch()
    await asyncio.sleep(0)
    return bool(falls)


async def test_a_renewal_holds_for_as_long_as_it_says() -> None:
    falls: list[float] = []
    fence = Fence(lambda: True, lambda: falls.append(0))
    fence.renew(60)
    assert not fence.is_down
    fence.renew(0)
    assert fence.is_down
    assert falls


async def test_a_renewal_that_waited_in_a_socket_renews_nothing() -> None:
    falls: list[float] = []
    fence = Fence(lambda: True, lambda: falls.append(0))
    fence.renew(60, linux.boottime() - 1)  # sent long ago: the agent, or its whole host, stood still meanwhile
    assert fence.is_down
    assert await _fallen(fence, falls)
    fence.renew(60, linux.boottime() + 60)
    assert not fence.is_down


async def test_a_renewal_does_not_spare_what_ran_beyond_the_last_one() -> None:
    """The agent stood still, and wakes up to the renewal before its own timer (simulation, seed 70062)."""
    falls: list[float] = []
    fence = Fence(lambda: True, lambda: falls.append(0))
    fence.renew(60, linux.boottime() - 1)
    falls.clear()
    fence.renew(60)
    assert (falls, fence.lapses, fence.is_down) == ([0], 1, False)
    fence.renew(60)
    assert (falls, fence.lapses) == ([0], 1)


async def test_a_moment_far_away_does_not_lengthen_a_renewal() -> None:
    fence = Fence(lambda: True, lambda: None)
    fence.renew(0, linux.boottime() + 60)
    assert fence.is_down


async def test_without_a_lease_nothing_ends() -> None:
    fence = Fence(lambda: True, lambda: None)
    fence.renew(0)
    fence.renew(None)
    assert not fence.is_down
