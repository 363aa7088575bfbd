"""Services that are started again when they die: schedulers, API processes, feeders."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from tests.simulation.hosts import Host, SimProcess


class Unit:
    """What a host keeps running, one process after the other."""

    def __init__(self, host: Host, name: str, serve: Callable[[SimProcess], Coroutine[Any, Any, None]]) -> None:
        self.host = host
        self.name = name
        self._serve = serve
        self.process: SimProcess | None = None
        #: How long the next start takes after a death; None: it stays dead until :meth:`start`.
        self.rest: float | None = 1.0

    def start(self) -> SimProcess:
        process = self.process = self.host.start(self.name)
        process.on_death.append(self._died)
        process.spawn(self._run(process), name=self.name)
        return process

    async def _run(self, process: SimProcess) -> None:
        try:
            await self._serve(process)
        except Exception as error:  # noqa: BLE001  # a service that ends is started again, and the seed has failed
            self.host.site.note_error(f"{self.name} ended: {error!r}")
            process.kill()

    def _died(self) -> None:
        self.process = None
        if self.rest is not None:
            self.host.site.loop.call_later(self.rest, self._again, context=self.host.site.context)

    def _again(self) -> None:
        if self.process is None and not self.host.is_gone:
            self.start()
