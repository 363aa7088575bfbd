"""Agents and the real API, with no broker between: what the unit tests say of a small API holds for ours."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest

from executors.conformance.world import RealEntropy
from executors.feed import Dropped, Feeder, Worker
from runyard.conformance.live import Live
from runyard.conformance.service import Service
from worker import linux

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from executors.base import Executor
    from executors.conformance.metastore import Row

BODY: dict[str, Any] = {
    "dag_id": "kit",
    "run_id": "manual",
    "task_id": "task",
    "map_index": -1,
    "try_number": 1,
    "logical_date": "2026-01-02T03:04:05Z",
    "kind": "command",
    "env": {},
    "cwd": None,
    "timeout": None,
    "kill_grace": 2.0,
}


class Direct:
    """As much of an executor as the metastore of the kit asks about."""

    name = "dramatiq"
    by_queue = True
    placed_on = None


class Site:
    """The API, a worker, and what is between."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service = Service(folder / "service")
        self.live = Live(self.service)
        self.home = folder / "home"
        self.feeder: Feeder

    async def open(self) -> None:
        self.service.folder.mkdir()
        self.home.mkdir(mode=0o700)
        await self.live.open()
        await self.live.serve(cast("Executor", Direct()))
        await asyncio.to_thread(self.feed)

    def feed(self) -> None:
        worker = Worker(
            api_url=self.service.url,
            api_key=self.service.key,
            name="w",
            executor="dramatiq",
            queues=("default",),
            slots=4,
        )
        self.feeder = Feeder(self.home, worker, code_dir=self.folder, task_python=sys.executable, entropy=RealEntropy())
        assert self.feeder.wait_for_answer(30) == ("serving", "")

    async def begin(self, shell: str, **body: Any) -> tuple[Row, asyncio.Task[str]]:
        """Queue a line for a shell, and have it delivered."""
        whole = {**BODY, "argv": None, "shell": shell, **body}
        attempt_id = await self.live.queue(cast("Any", whole))
        message = asyncio.get_running_loop().create_task(asyncio.to_thread(self._deliver, attempt_id))
        return self.live.rows[attempt_id], message

    def _deliver(self, attempt_id: str) -> str:
        try:
            self.feeder.run(attempt_id, self.live.ticket(attempt_id))
        except Dropped:
            return "dropped"
        return "acked"

    async def until(self, condition: Callable[[], object], what: str, within: float = 30.0) -> None:
        end = asyncio.get_running_loop().time() + within
        while not condition():
            assert asyncio.get_running_loop().time() < end, f"not within {within:g} s: {what}"
            await asyncio.sleep(0.02)

    async def ended(self, row: Row) -> str:
        await self.until(lambda: row.is_over, "it ends")
        return row.state

    @property
    def agent(self) -> int:
        assert self.feeder._hello is not None
        return self.feeder._hello["pid"]

    async def close(self) -> None:
        await asyncio.to_thread(self.feeder.drain, 0)
        self.feeder.close()
        await self.live.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    await site.open()
    yield site
    await site.close()


async def test_a_task_runs_with_its_output_and_its_log(site: Site) -> None:
    row, message = await site.begin("echo hello; echo '[1, 2]' > $RUNYARD_OUTPUT")
    assert await message == "acked"
    assert (await site.ended(row), row.output(), site.live.log(row.attempt_id)) == ("success", [1, 2], b"hello\n")


async def test_the_largest_output_and_a_long_log_arrive(site: Site) -> None:
    line = "(printf '\"'; head -c 1048574 /dev/zero | tr '\\0' '/'; printf '\"') > $RUNYARD_OUTPUT; seq 1 400000"
    row, message = await site.begin(line)
    assert await message == "acked"
    assert await site.ended(row) == "success", row.ending["error"]
    assert row.output() == "/" * 1_048_574
    await site.until(lambda: len(site.live.log(row.attempt_id)) == row.ending["log_size"], "its log is whole")
    assert site.live.log(row.attempt_id).splitlines() == [b"%d" % number for number in range(1, 400_001)]


async def test_a_cancel_reaches_a_running_task(site: Site) -> None:
    row, message = await site.begin("echo up; exec sleep 100")
    await site.until(lambda: site.live.log(row.attempt_id), "it runs")
    await site.live.cancel(row.attempt_id)
    assert await message == "acked"
    assert await site.ended(row) == "cancelled"


async def test_a_forged_and_a_late_message_start_nothing(site: Site) -> None:
    row, message = await site.begin("true")
    assert await message == "acked"
    assert await site.ended(row) == "success"
    attempt_id = await site.live.queue(cast("Any", {**BODY, "argv": ["touch", str(site.folder / "never")]}))
    await asyncio.to_thread(site.feeder.run, attempt_id, "rt1." + "x" * 43)
    await asyncio.to_thread(site.feeder.run, attempt_id, site.live.ticket(row.attempt_id))
    assert site.live.rows[attempt_id].state == "queued"
    assert not (site.folder / "never").exists()


async def test_an_outage_of_the_api_in_the_middle_of_a_task_loses_nothing(site: Site) -> None:
    row, message = await site.begin("echo up; sleep 2; echo 7 > $RUNYARD_OUTPUT; echo end")
    await site.until(lambda: site.live.log(row.attempt_id), "it runs")
    await site.live.outage(on=True)
    await asyncio.sleep(4)
    assert not message.done()
    await site.live.outage(on=False)
    assert await message == "acked"
    assert (await site.ended(row), row.output(), site.live.log(row.attempt_id)) == ("success", 7, b"up\nend\n")


async def test_an_agent_that_is_killed_has_its_task_given_up_at_once(site: Site) -> None:
    row, message = await site.begin("echo up; exec sleep 100")
    await site.until(lambda: site.live.log(row.attempt_id), "it runs")
    os.kill(site.agent, signal.SIGKILL)
    assert await message == "acked"
    assert await site.ended(row) == "lost"
    again, message = await site.begin("true")
    assert (await message, await site.ended(again)) == ("acked", "success")


async def test_a_drain_requeues_and_leaves(site: Site) -> None:
    row, message = await site.begin("echo up; exec sleep 100")
    await site.until(lambda: site.live.log(row.attempt_id), "it runs")
    agent = site.agent
    assert await asyncio.to_thread(site.feeder.drain, 0)
    assert await message == "acked"
    assert await site.ended(row) == "drained"
    assert linux.descendants(agent) == []
