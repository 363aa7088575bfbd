"""Handing over to executors: what comes in any moment is launched."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from dag.ids import AttemptId
from executors.base import Accepted, Launch
from scheduler.handover import Handover

if TYPE_CHECKING:
    from collections.abc import Sequence

    from executors.base import Executor, LaunchResult
    from metastore.store import Store

FIRST, SECOND, THIRD = (Launch(AttemptId(name), {}) for name in ("first", "second", "third"))


class Slow:
    """An executor that launches when it is told to, and then everything."""

    by_queue = False

    def __init__(self) -> None:
        self.launched: list[str] = []
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def launch(self, batch: Sequence[Launch]) -> Sequence[LaunchResult]:
        await self.ready
        self.launched += [one.attempt_id for one in batch]
        return [Accepted(one.attempt_id) for one in batch]


def a_handover(executor: Slow) -> Handover:
    executors: dict[str, Any] = {"slow": executor}
    return Handover(cast("Store", None), cast("dict[str, Executor]", executors))


async def test_what_comes_while_a_lane_ends_is_launched() -> None:
    executor = Slow()
    handover = a_handover(executor)
    handover.launch("slow", [FIRST])
    await asyncio.sleep(0)
    # The lane goes on, finds nothing more and ends; this comes in the same round of the loop, right behind it.
    executor.ready.set_result(None)
    asyncio.get_running_loop().call_soon(handover.launch, "slow", [SECOND])
    for _ in range(10):
        await asyncio.sleep(0)
    assert executor.launched == ["first", "second"]


async def test_a_lane_at_a_time_takes_what_came_meanwhile() -> None:
    executor = Slow()
    handover = a_handover(executor)
    handover.launch("slow", [FIRST])
    await asyncio.sleep(0)
    handover.launch("slow", [SECOND, THIRD])
    await asyncio.sleep(0)
    assert executor.launched == []
    executor.ready.set_result(None)
    for _ in range(10):
        await asyncio.sleep(0)
    assert executor.launched == ["first", "second", "third"]
    await handover.close()
