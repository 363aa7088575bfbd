"""Whether the service is ready; remembered for a moment, because anybody may ask as often as they like."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

import structlog

from metastore.queries import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dag.world import Clock
    from metastore.store import Store

log = structlog.get_logger(__name__)

_BELIEVED: Final = 1.0
#: A no is asked about again sooner: who waits for a service that starts should not wait for our memory as well.
_DOUBTED: Final = 0.05
#: A metastore that takes longer is not one to send work to.
_PATIENCE: Final = 2.0


class Readiness:
    """Asks the metastore and the probes, at most once a second while all is well."""

    def __init__(self, store: Store, clock: Clock, log_dir: Path, probes: Mapping[str, Callable[[], bool]]) -> None:
        self._store = store
        self._log_dir = log_dir
        self._clock = clock
        self._probes = probes
        self._looked: asyncio.Task[bool] | None = None
        self._at = 0.0
        self._was = True

    async def ready(self) -> bool:
        """Whether work may be sent."""
        now = self._clock.monotonic()
        believed = _BELIEVED if self._was else _DOUBTED
        if self._looked is None or (self._looked.done() and now - self._at >= believed):
            self._at = now
            self._looked = asyncio.create_task(self._look())
        return await asyncio.shield(self._looked)

    async def _look(self) -> bool:
        unwell = [name for name, well in self._probes.items() if not well()]
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
        if self._was and unwell:
            log.warning("not ready", because=unwell)
        self._was = not unwell
        return not unwell
