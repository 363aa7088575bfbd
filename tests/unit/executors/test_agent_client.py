"""What a service tells the agent of its home, and what it had better not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from executors.agent import AgentClient
from executors.base import Phase
from tests.world import FakeClock
from worker.protocol import PROTOCOL
from worker.settings import AgentSettings

LEASE = timedelta(seconds=90)


class Wire:
    """A link to an agent that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def send(self, message: Any) -> None:
        self.told.append(message)

    def tasks(self) -> list[str]:
        return [message["attempt_id"] for message in self.told if message["type"] == "task"]


class Slow:
    """A door whose answers wait until they are let through."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def start(self, message: Any, _placed_on: str | None) -> list[Any]:
        await self.open.wait()
        return [{"type": "task", "attempt_id": message["attempt_id"], "body": {}}]

    async def finish(self, message: Any, _placed_on: str | None) -> list[Any]:
        await self.open.wait()
        finished = {"type": "finished", "attempt_id": message["attempt_id"], "accepted": True}
        return [finished, {"type": "task", "attempt_id": "next", "body": {}}]


class Service:
    """A scheduler's side: what a client is attached with."""

    slots = 4

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.door = Slow()

    def wake(self) -> None:
        """Nothing is looked at here."""


async def _connected() -> tuple[AgentClient, Service, Wire]:
    settings = AgentSettings.make_remote(home="/none", code_dir="/none", task_python="python", environ={})
    client, service, wire = AgentClient(Path("/none"), settings, {}), Service(), Wire()
    client._users[cast("Any", service)] = cast("Any", service)
    client.connected(cast("Any", wire))
    hello = {"type": "hello", "protocol": PROTOCOL, "version": settings.version, "agent_id": "a", "boot_id": "b"}
    client.received(cast("Any", wire), cast("Any", hello | {"pid": 1, "attempts": []}))
    client.renew(LEASE)
    return client, service, wire


async def _ask(client: AgentClient, wire: Wire) -> None:
    client.received(cast("Any", wire), cast("Any", {"type": "start", "attempt_id": "one", "boot_id": "b"}))
    client.received(cast("Any", wire), cast("Any", {"type": "finish", "attempt_id": "two", "boot_id": "b"}))
    await asyncio.sleep(0)


async def test_what_is_answered_under_the_lease_it_was_asked_under_is_passed_on() -> None:
    client, service, wire = await _connected()
    await _ask(client, wire)
    service.clock.move(LEASE / 2)
    client.renew(LEASE)
    service.clock.move(LEASE / 2)
    service.door.open.set()
    await asyncio.sleep(0.01)
    assert sorted(wire.tasks()) == ["next", "one"]


async def test_what_was_started_under_a_lease_that_ran_out_is_not_passed_on_under_the_next() -> None:
    """Others may have given it up and started it elsewhere in between; whether they have, the next start says."""
    client, service, wire = await _connected()
    await _ask(client, wire)
    service.clock.move(LEASE)
    client.renew(LEASE)
    service.door.open.set()
    await asyncio.sleep(0.01)
    assert wire.tasks() == []
    assert [message["attempt_id"] for message in wire.told if message["type"] == "finished"] == ["two"]
    assert client.phase(cast("Any", "next"), cast("Any", service)) is Phase.GONE
    await _ask(client, wire)
    await asyncio.sleep(0.01)
    assert sorted(wire.tasks()) == ["next", "one"]


async def test_who_has_no_slot_still_sends_what_was_started_under_another_executor() -> None:
    """The answer to its start was lost: nobody else could send it again."""
    client, _, wire = await _connected()
    caretaker = Service()
    caretaker.slots = 0
    assert client.place(cast("Any", "one"), cast("Any", caretaker))
    assert [message["attempt_id"] for message in wire.told if message["type"] == "launch"] == ["one"]
