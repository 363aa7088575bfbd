"""Whether the service is ready; remembered for a moment, because anybody may ask as often as they like.

Ready means: send requests here.  An executor that is down is no reason against it: what is triggered is accepted and
waits, everything else works.  Above all a broker that is down must not take the API away from the workers, who could
neither renew their leases nor tell how tasks ended, and would kill what still runs.  So executors count only where no
worker depends on this API, and only when all of them are down: then this service can do nothing with what is sent.
What each of them is like is told by ``GET /api/v1/executors``.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from executors.base import HealthStatus
from metastore.queries import keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dag.world import Clock
    from executors.base import Health
    from metastore.store import Store

log = structlog.get_logger(__name__)

_BELIEVED: Final = 1.0
#: A no is asked about again sooner: who waits for a service that starts should not wait for our memory as well.
_DOUBTED: Final = 0.05
#: A metastore that takes longer is not one to send work to.
_PATIENCE: Final = 2.0
#: So long after the start it is no news that something has not begun yet.
_STARTING: Final = 5.0


class Placer(Protocol):
    """What is looked at of an executor."""

    name: str
    by_queue: bool

    def health(self) -> Health:
        """How it is, from what is known already."""
        ...


class Readiness:
    """Asks the metastore, the log store and the executors, at most once a second while all is well."""

    def __init__(self, store: Store, clock: Clock, log_dir: Path, active: Sequence[Placer]) -> None:
        self._store = store
        self._log_dir = log_dir
        self._clock = clock
        self._active = active
        self._down: list[str] = []
        self._begun = clock.monotonic()
        self._looked: asyncio.Task[bool] | None = None
        self._at = 0.0
        self._was = True
        #: Whether it was logged that something is not ready.
        self._told = False

    async def ready(self) -> bool:
        """Whether work may be sent."""
        now = self._clock.monotonic()
        believed = _BELIEVED if self._was else _DOUBTED
        if self._looked is None or (self._looked.done() and now - self._at >= believed):
            self._at = now
            self._looked = asyncio.create_task(self._look())
        return await asyncio.shield(self._looked)

    async def _look(self) -> bool:
        unwell = self._executors_down()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._store.read(keys.get, "")
                await self._store.check()
        except Exception:  # noqa: BLE001  # whatever it is, the answer is no
            unwell.append("metastore")
        try:
            async with asyncio.timeout(_PATIENCE):
                # On a thread: a shared folder may be on a server that is away.
                if not await asyncio.to_thread(os.access, self._log_dir / ".", os.R_OK | os.X_OK):
                    unwell.append(f"log store {self._log_dir}")
        except TimeoutError:
            unwell.append(f"log store {self._log_dir}")
        if not self._is_starting():
            if unwell and not self._told:
                log.warning("not ready", because=unwell)
            self._told = bool(unwell)
        self._was = not unwell
        return not unwell

    def _is_starting(self) -> bool:
        return self._clock.monotonic() - self._begun < _STARTING

    def _executors_down(self) -> list[str]:
        """Return the executors that are down, where that is a reason."""
        down = [f"executor {one.name}" for one in self._active if one.health().status is HealthStatus.DOWN]
        if not self._is_starting():
            if down and down != self._down:
                log.warning("executors down", executors=down)
            self._down = down
        served = any(one.by_queue for one in self._active)
        return down if len(down) == len(self._active) and not served else []
