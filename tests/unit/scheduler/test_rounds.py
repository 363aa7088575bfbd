"""A scheduler knows when it does not come round any more."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from dag.errors import Unavailable
from executors import registry
from executors.base import ExecutorConfig
from scheduler.loop import Scheduler
from scheduler.settings import SchedulerSettings

if TYPE_CHECKING:
    from pathlib import Path

    from metastore.sqlite import SqliteStore
    from tests.world import FakeClock, SeededEntropy


async def test_a_part_that_does_not_come_round_is_overdue(
    sqlite_store: SqliteStore, clock: FakeClock, entropy: SeededEntropy, tmp_path: Path
) -> None:
    config = ExecutorConfig(
        name="sequential",
        home=tmp_path,
        code_dir=tmp_path,
        log_dir=tmp_path,
        task_python=sys.executable,
        parallelism=1,
    )
    scheduler = Scheduler(
        store=sqlite_store,
        executors=[registry.make(config)],
        clock=clock,
        entropy=entropy,
        registry=CollectorRegistry(),
        settings=SchedulerSettings(longest_sleep=timedelta(seconds=20), safety_poll=timedelta(seconds=20)),
    )
    assert scheduler.overdue() == []  # it has not begun
    rounds: asyncio.Queue[Exception | None] = asyncio.Queue()

    async def part() -> None:
        error = await rounds.get()
        if error is not None:
            raise error

    async def go_round(error: Exception | None) -> None:
        rounds.put_nowait(error)
        async with asyncio.timeout(10):
            while not rounds.empty():  # noqa: ASYNC110  # a fact, not an event
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)

    scheduler._came_round = {"work": clock.monotonic()}
    task = asyncio.create_task(scheduler._keep("work", part))
    clock.move(timedelta(seconds=79))
    assert scheduler.overdue() == []
    await go_round(None)
    clock.move(timedelta(seconds=79))
    assert scheduler.overdue() == []
    await go_round(Unavailable("the database is away"))
    clock.move(timedelta(seconds=2))
    assert scheduler.overdue() == ["work: no round for 81 s"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
