"""The HTTP of remote agents, without threads and sockets."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING, Any

from tests.simulation.hosts import here
from tests.simulation.network import NoAnswer
from worker.http_door import Answer, Outage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.network import Network
    from worker.http_door import Request


class SimLane:
    """What stands for :class:`worker.http_door.Lane`: some exchanges at a time, and no threads."""

    def __init__(self, loop: Any, name: str, threads: int) -> None:
        del loop
        self._process = here()
        self._name = name
        self._free = threads
        self._waiting: deque[tuple[Request, Callable[[Answer | Outage], None]]] = deque()
        self._flying: dict[Request, asyncio.Event] = {}

    def aim(self, site: Any) -> None:
        """There is one API."""

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting or self._flying)

    def send(self, request: Request, then: Callable[[Answer | Outage], None]) -> None:
        self._waiting.append((request, then))
        self._next()

    def cancel(self, request: Request) -> None:
        request.is_cancelled = True
        if request in self._flying:
            self._flying[request].set()

    def cancel_overdue(self) -> None:
        """Every exchange has an end here."""

    def close(self) -> None:
        """There is nothing to close."""

    def _next(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            self._process.spawn(self._exchange(*self._waiting.popleft()), name=self._name)

    async def _exchange(self, request: Request, then: Callable[[Answer | Outage], None]) -> None:
        stop = self._flying[request] = asyncio.Event()
        result: Answer | Outage
        if request.is_cancelled:
            result = Outage("cancelled", is_sent=False)
        else:
            result = await self._or_cancelled(request, stop)
        del self._flying[request]
        self._free += 1
        self._next()
        then(result)

    async def _or_cancelled(self, request: Request, stop: asyncio.Event) -> Answer | Outage:
        asking = asyncio.ensure_future(self._ask(request))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait([asking, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if asking.done():
            return asking.result()
        asking.cancel()
        return Outage("cancelled", is_sent=True)

    async def _ask(self, request: Request) -> Answer | Outage:
        body = request.body()
        network: Network = self._process.site.network
        try:
            status, document = await network.ask(
                self._process, request.timeout, request.method, request.path, request.secret, body
            )
        except NoAnswer as error:
            return Outage(str(error), is_sent=error.is_sent)
        if status == 410 and request.path.startswith("/workers"):
            self._process.site.superseded.append(self._process)
            self._process.site.note_upset(self._process.host)
        if status >= 500:
            return Outage(f"{status}")
        # What arrives is a copy.
        return Answer(status, json.loads(json.dumps(document)))
