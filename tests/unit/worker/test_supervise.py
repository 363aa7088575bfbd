"""A supervisor and the lease of its agent; the tasks are real processes."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.unit.worker.bodies import a_body
from worker import linux
from worker.protocol import PROTOCOL
from worker.settings import AgentSettings
from worker.spool import Spool
from worker.supervise import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.protocol import Message


class Service:
    """The service of a supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._heard: asyncio.Queue[Message] = asyncio.Queue()
        supervisor.asker.send = self._heard.put_nowait
        supervisor.receive({"type": "welcome", "protocol": PROTOCOL, "version": "1"})

    async def hears(self) -> str:
        """Wait for the next message; return its type, or the outcome that it tells."""
        message = await asyncio.wait_for(self._heard.get(), 30)
        return message["outcome"] if message["type"] == "finish" else message["type"]

    def gives_a_lease(self, seconds: float) -> None:
        self._supervisor.receive({"type": "beat", "ttl": seconds, "until": linux.boottime() + seconds})

    def answers(self, attempt_id: str) -> None:
        self._supervisor.receive({"type": "task", "attempt_id": attempt_id, "body": a_body(argv=["true"])})

    def drains(self) -> None:
        self._supervisor.receive({"type": "drain", "grace": 0.0})


@contextmanager
def a_service(place: Path) -> Iterator[Service]:
    settings = AgentSettings(
        home=str(place), code_dir=str(place), log_dir=str(place / "logs"), task_python=sys.executable
    )
    lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT)
    supervisor = Supervisor(settings, Spool(str(place / "attempts")), lock, "agent")
    supervisor.warm_up()
    try:
        yield Service(supervisor)
    finally:
        supervisor.close()
        os.close(lock)


async def test_what_is_answered_while_the_lease_is_over_waits_for_the_next_one(tmp_path: Path) -> None:
    """To end it as lost would take a loss of its budget each time, although nothing of it ran."""
    with a_service(tmp_path) as service:
        service.gives_a_lease(0)
        service.answers("by-an-end")
        assert await service.hears() == "start"
        service.answers("by-an-end")
        service.gives_a_lease(60)
        assert await service.hears() == "start"
        service.answers("by-an-end")
        assert await service.hears() == "success"


async def test_what_is_answered_to_who_is_drained_does_not_wait_for_a_lease(tmp_path: Path) -> None:
    with a_service(tmp_path) as service:
        service.gives_a_lease(0)
        service.drains()
        service.answers("too-late")
        assert await service.hears() == "drained"
