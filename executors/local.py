"""The ``local`` executor: parallel processes on this host, held by an agent that outlives a crash of the service."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from executors import spawn
from executors.agent import AgentClient
from executors.base import (
    API_VERSION,
    Accepted,
    Deferred,
    Health,
    HealthStatus,
    LaunchResult,
    Observation,
    Phase,
    Traits,
)
from worker import environment
from worker.settings import AgentSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dag.ids import AttemptId
    from executors.base import Context, ExecutorConfig, Launch
    from worker.protocol import StopReason

_NOT_CONNECTED: Final = timedelta(seconds=0.5)
_NO_SLOT: Final = timedelta(seconds=1)
#: The most seconds between SIGTERM and SIGKILL of a cancel; the agent knows each task's own ``kill_grace``.
_GRACE: Final = 3600.0

#: One agent a home and so one connection, whichever executors use it.
_clients: dict[tuple[asyncio.AbstractEventLoop, Path], AgentClient] = {}


class Local:
    """Places attempts with the agent of this home."""

    api_version = API_VERSION
    by_queue = False
    traits = Traits(survives_scheduler=True, observable=True, revocable=True)

    def __init__(self, config: ExecutorConfig, slots: int) -> None:
        self.name = config.name
        self.slots: int | None = slots
        self.placed_on: str | None = None
        self._config = config
        self._client: AgentClient | None = None

    async def start(self, context: Context) -> None:
        """Connect to the agent, or start one; both in the background."""
        config = self._config
        self.placed_on = spawn.prepare(config.home, context.entropy)
        key = (asyncio.get_running_loop(), config.home.resolve())
        client = _clients.get(key)
        if client is None:
            environ = environment.allowed(os.environ)
            settings = AgentSettings.make(
                home=str(config.home.absolute()),
                code_dir=str(config.code_dir.absolute()),
                log_dir=str(config.log_dir.absolute()),
                task_python=config.task_python,
                environ=environ,
                http_allow=config.http_allow,
                http_ports=config.http_ports,
            )
            client = _clients[key] = AgentClient(config.home, settings, environ)
        self._client = client
        client.attach(self, context)

    async def stop(self, *, drain: timedelta) -> None:
        """Drain the agent, unless another executor of this service still uses it."""
        client, self._client = self._client, None
        if client is None:
            return
        await client.detach(self, drain)
        self._forget(client)

    def abandon(self) -> None:
        """Let go of the agent as a crash would; for the conformance kit."""
        client, self._client = self._client, None
        if client is not None:
            client.abandon()
            self._forget(client)

    def _forget(self, client: AgentClient) -> None:
        for key in [key for key, one in _clients.items() if one is client and not client.users]:
            del _clients[key]

    async def launch(self, batch: Sequence[Launch]) -> Sequence[LaunchResult]:
        """Offer each attempt to the agent, as far as slots are free."""
        client = self._client
        if client is None or client.boot_id is None:
            why = client.why_down if client is not None else "the executor is not started"
            return [Deferred(launch.attempt_id, why, _NOT_CONNECTED) for launch in batch]
        results: list[LaunchResult] = []
        for launch in batch:
            if client.place(launch.attempt_id, self, started=launch.started):
                results.append(Accepted(launch.attempt_id))
            else:
                why = f"all {self.slots} slots of the executor {self.name} are taken"
                results.append(Deferred(launch.attempt_id, why, _NO_SLOT))
        return results

    async def cancel(self, batch: Sequence[AttemptId], *, reason: StopReason) -> None:
        """Pass the directive on; the next reconcile repeats it while there is no agent."""
        if self._client is not None:
            for attempt_id in batch:
                self._client.cancel({"type": "cancel", "attempt_id": attempt_id, "reason": reason, "grace": _GRACE})

    async def observe(self, batch: Sequence[AttemptId]) -> Sequence[Observation]:
        """Say what the agent's hello and the messages since then add up to."""
        client = self._client
        if client is None or client.boot_id is None:
            why = client.why_down if client is not None else "the executor is not started"
            return [Observation(attempt_id=a, phase=Phase.UNKNOWN, detail=why) for a in batch]
        return [
            Observation(attempt_id=a, phase=client.phase(a, self), boot_id=client.boot_id) for a in batch
        ]  # fmt: skip

    def renew(self, ttl: timedelta | None) -> None:
        if self._client is not None:
            self._client.renew(ttl)

    def health(self) -> Health:
        if self._client is None:
            return Health(HealthStatus.DOWN, "not started")
        if self._client.boot_id is None:
            return Health(HealthStatus.DOWN, self._client.why_down)
        return Health(HealthStatus.OK)


def create(config: ExecutorConfig) -> Local:
    """Return the executor ``local``."""
    return Local(config, slots=config.parallelism)
