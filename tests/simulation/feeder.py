"""A worker's feeder: takes messages from the broker, hands them to the agent of its home, acknowledges what is done.

The real one is threads around a broker's library; this one keeps the same promises over the same socket.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.agents import boot, connect, is_alive
from tests.simulation.broker import Consumer
from worker.link import Link
from worker.protocol import PROTOCOL
from worker.settings import AgentSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from tests.simulation.agents import Home
    from tests.simulation.broker import Broker, Parked
    from tests.simulation.hosts import SimProcess
    from worker.protocol import Message

_POLL: Final = 2.0
_PAUSE: Final = 0.05
#: How long beyond its tasks' time an agent is waited for.
_DRAIN_MARGIN: Final = 20.0


class Feeder:
    """One process."""

    def __init__(
        self, process: SimProcess, home: Home, broker: Broker, *, name: str, queues: Sequence[str], slots: int
    ) -> None:
        self._process = process
        self._home = home
        self._broker = broker
        self._name = name
        self._queues = queues
        self._slots = slots
        self._settings = AgentSettings.make_remote(
            home=home.path, code_dir="/sim/code", task_python="python", environ={}
        )
        self._news = asyncio.Event()
        self._consumer = Consumer(process, queues, self._news.set)
        self._link: Link | None = None
        self._is_open = False
        self._lost = asyncio.Event()
        #: What is with the agent, by attempt; copies of a message wait for the same end.
        self._runs: dict[str, list[Parked]] = {}
        #: How long what runs may go on, once it was told to end.
        self._grace: float | None = None
        self._drained = asyncio.Event()

    async def run(self) -> None:
        self._process.service = self
        self._process.spawn(self._keep(), name="keeper")
        self._broker.attach(self._consumer)
        while True:
            try:
                async with asyncio.timeout(_POLL):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            self._broker.hear(self._consumer)
            while self._grace is None and sum(map(len, self._runs.values())) < self._slots:
                message = self._broker.take(self._consumer)
                if message is None:
                    break
                self._enter(message)

    async def stop(self, drain: timedelta) -> None:
        """Take nothing more, and have the agent end: what runs gets *drain*, then is stopped and runs elsewhere."""
        self._grace = drain.total_seconds()
        self._send({"type": "drain", "grace": self._grace})
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace + _DRAIN_MARGIN):
                await self._drained.wait()

    def _enter(self, message: Parked) -> None:
        copies = self._runs.setdefault(message.attempt_id, [])
        copies.append(message)
        if self._is_open and len(copies) == 1:
            self._launch(message)

    def _launch(self, message: Parked) -> None:
        self._send({"type": "launch", "attempt_id": message.attempt_id, "ticket": message.ticket})

    # The agent

    async def _keep(self) -> None:
        while True:
            if self._link is None and not await self._connect():
                await asyncio.sleep(_PAUSE + self._process.dice.random() * 0.2)
                continue
            await self._lost.wait()

    async def _connect(self) -> bool:
        self._lost.clear()
        try:
            end = connect(self._home.path)
        except OSError:
            if not is_alive(self._home.path) and not self._is_booting():
                self._start_agent()
            return False
        self._link = link = Link(self)
        await self._process.loop.create_unix_connection(lambda: link, sock=end)
        return True

    def _start_agent(self) -> None:
        if self._grace is not None:
            self._drained.set()
        else:
            self._agent = boot(self._home, self._settings)

    _agent: SimProcess | None = None

    def _is_booting(self) -> bool:
        return self._agent is not None and self._agent.is_alive

    def connected(self, link: Link) -> None:  # what all peers are told
        """Wait for the agent, who says hello first."""

    def received(self, link: Link, message: Message) -> None:
        if link is not self._link:
            return
        match message["type"]:
            case "hello":
                self._greet()
            case "done":
                self._resolve(message["attempt_id"], is_dropped=False)
            case "dropped":
                self._resolve(message["attempt_id"], is_dropped=True)
            case "status":
                pass
            case other:
                self._process.site.note_error(f"a message that no remote agent sends: {other}")

    def unsent(self, link: Link, message: Message, why: str) -> None:  # noqa: ARG002  # what all peers are told
        self._process.site.note_error(f"unsent: {message['type']} {why}")

    def lost(self, link: Link, why: str) -> None:
        del why
        if link is self._link:
            self._link = None
            self._is_open = False
            self._lost.set()

    def _greet(self) -> None:
        self._send({"type": "welcome", "protocol": PROTOCOL, "version": self._settings.version})
        self._is_open = True
        self._send(
            {
                "type": "configure",
                "api_url": "http://api",
                "api_key": "k" * 40,
                "name": self._name,
                "executor": "dramatiq",
                "queues": list(self._queues),
                "slots": self._slots,
            }
        )
        if self._grace is not None:
            self._send({"type": "drain", "grace": self._grace})
        for copies in self._runs.values():
            self._launch(copies[0])

    def _resolve(self, attempt_id: str, *, is_dropped: bool) -> None:
        for message in self._runs.pop(attempt_id, []):
            if is_dropped:
                self._broker.put_back(self._consumer, message)
            else:
                self._broker.acknowledge(self._consumer, message)
        self._news.set()

    def _send(self, message: Any) -> None:
        if self._link is not None:
            self._link.send(message)
