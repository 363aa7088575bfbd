"""Two schedulers on one Postgres, each with a real agent of its own; one of them dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from executors.base import ExecutorConfig
from executors.local import create
from metastore.postgres import PostgresStore
from metastore.settings import DatabaseSettings
from runyard.world import SystemClock, SystemEntropy
from scheduler.loop import Scheduler
from scheduler.settings import SchedulerSettings
from tests.metastore.flow import Flow
from tests.metastore.history import judged
from tests.system.history import journaling, read_journal
from tests.system.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from executors.local import Local

pytestmark = pytest.mark.postgres
LEASE = timedelta(seconds=3)


class Host:
    """What runs on one host: a store, a scheduler, an executor with its agent."""

    def __init__(self, home: Path, store: PostgresStore) -> None:
        home.mkdir(mode=0o700)
        (home / "code").mkdir()
        self.home = home
        self.store = store
        self.executor: Local = create(
            ExecutorConfig(
                name="local",
                home=home,
                code_dir=home / "code",
                log_dir=home / "logs",
                task_python=sys.executable,
                parallelism=2,
            )
        )
        self.scheduler = Scheduler(
            store=store,
            executors=[self.executor],
            clock=SystemClock(),
            entropy=SystemEntropy(),
            registry=CollectorRegistry(),
            settings=SchedulerSettings(lease=LEASE, beat=timedelta(seconds=0.5), safety_poll=timedelta(seconds=1)),
        )
        self.dead = False

    async def die(self) -> None:
        """Go without a word: scheduler, connection and agent at once, as a host that loses its power."""
        self.dead = True
        for task in self.scheduler._tasks:
            task.cancel()
        self.executor.abandon()
        for pid in Service(self.home).agents():
            os.kill(pid, signal.SIGKILL)

    async def end(self) -> None:
        if not self.dead:
            await self.scheduler.stop(drain=timedelta(0))
        await self.store.close()
        for pid in Service(self.home).agents():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def hosts(postgres_url: str, tmp_path: Path) -> AsyncIterator[list[Host]]:
    made = []
    for name in ("one", "two"):
        store = await PostgresStore.open(DatabaseSettings(postgres_url), clock=SystemClock(), entropy=SystemEntropy())
        made.append(Host(tmp_path / name, store))
        await made[-1].scheduler.start()
    yield made
    for host in made:
        await host.end()


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


def told(journal: Path) -> list[tuple[str, int]]:
    return [(line["what"], line["fence"]) for line in read_journal(journal)]


async def test_two_schedulers_share_the_work_and_start_nothing_twice(hosts: list[Host], tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    tasks = {
        name: journaling("sleep 0.05", journal, *upstream)
        for name, upstream in {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}.items()
    }
    flow = Flow(hosts[0].store, SystemClock())  # type: ignore[arg-type]  # the real clock will do
    await flow.put(tasks, max_active_tasks=3)
    runs = [await flow.create() for _ in range(12)]

    async def done() -> bool:
        return {(await flow.run(run)).state for run in runs} == {"success"}

    await until(done)
    report = await judged(hosts[0].store, read_journal(journal))
    assert not report.total, str(report)
    assert report.counts["journal starts"] == 48


async def test_what_a_dead_host_held_is_done_by_the_other_once_its_lease_is_over(
    hosts: list[Host], tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    flow = Flow(hosts[0].store, SystemClock())  # type: ignore[arg-type]  # the real clock will do
    await flow.put({"a": journaling("sleep 1.5", journal)})
    run = await flow.create()

    async def begun() -> bool:
        return told(journal) == [("start", 1)]

    await until(begun)
    clients = {host: host.executor._client for host in hosts}
    holder = next(host for host, client in clients.items() if client is not None and client._phases)
    other = next(host for host in hosts if host is not holder)
    await holder.die()
    died = time.monotonic()
    watch = Flow(other.store, SystemClock())  # type: ignore[arg-type]  # as above

    async def done() -> bool:
        return (await watch.run(run)).state == "success"

    await until(done)
    assert told(journal) == [("start", 1), ("start", 2), ("end", 2)]
    assert time.monotonic() - died < LEASE.total_seconds() + 10
    assert [event.reason for event in await watch.events(run) if event.to_state == "scheduled"] == [None, "lost"]
    report = await judged(other.store, read_journal(journal))
    assert not report.total, str(report)
