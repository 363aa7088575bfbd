"""HTTP between hosts: requests that are lost, answers that are lost, processes that die in between."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.simulation.hosts import SimProcess, Site

_LATENCY: Final = 0.003
#: What a request finds at a process that has just died, or at an address where nobody listens.
_REFUSED: Final = 0.002


class NoAnswer(Exception):
    """There was none; *is_sent*: whether the request may have been heard."""

    def __init__(self, why: str, *, is_sent: bool) -> None:
        super().__init__(why)
        self.is_sent = is_sent


class Network:
    """What carries requests to whichever API process listens."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._weather = site.weather
        #: Processes that serve, with what answers there.
        self.servers: dict[SimProcess, Callable[..., Coroutine[Any, Any, Any]]] = {}
        #: When there was none: since the beginning, and whenever the last one had died.
        self.outages: list[list[float]] = [[0.0]]

    def serve(self, process: SimProcess, answer: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        """Have *process* answer requests, as long as it lives."""
        self.servers[process] = answer
        if len(self.outages[-1]) == 1:
            self.outages[-1].append(process.loop.time())
        process.on_death.append(partial(self.withdraw, process))

    def withdraw(self, process: SimProcess) -> None:
        """Have *process* get no further requests; what it has got it may answer."""
        if self.servers.pop(process, None) is not None and not self.servers:
            self.outages.append([process.loop.time()])

    async def ask(self, client: SimProcess, seconds: float, *question: Any) -> Any:
        """Ask one of the servers; raise NoAnswer where none comes within *seconds*."""
        loop = client.loop
        weather = self._weather
        until = loop.time() + seconds
        if weather.is_down(f"net:{client.host}"):
            weather.count("net.partition")
            await asyncio.sleep(seconds)
            raise NoAnswer("no connection in time", is_sent=False)
        await asyncio.sleep(_LATENCY * client.dice.random())
        if not self.servers:
            await asyncio.sleep(_REFUSED)
            raise NoAnswer("connection refused", is_sent=False)
        server = client.dice.choice(list(self.servers))
        if weather.strikes("http.lost_request"):
            await asyncio.sleep(max(0.0, until - loop.time()))
            raise NoAnswer("no answer in time", is_sent=True)
        answer: asyncio.Future[Any] = loop.create_future()
        exchange = _Exchange(self, client, server, answer)
        server.spawn(exchange.run(self.servers[server], question), name="request")
        try:
            async with asyncio.timeout(max(0.0, until - loop.time())):
                return await answer
        except TimeoutError:
            raise NoAnswer("no answer in time", is_sent=True) from None
        finally:
            exchange.close()
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also where the time was over in the same instant


class _Exchange:
    """One request on its way through a server."""

    def __init__(self, network: Network, client: SimProcess, server: SimProcess, answer: asyncio.Future[Any]) -> None:
        self._network = network
        self._client = client
        self._server = server
        self._answer = answer
        self._is_over = False
        server.on_death.append(self._reset)

    async def run(self, serve: Callable[..., Coroutine[Any, Any, Any]], question: tuple[Any, ...]) -> None:
        """Answer, as the server's own process."""
        found = await serve(*question)
        self._is_over = True
        weather = self._network._weather
        if weather.strikes("http.lost_answer") or weather.is_down(f"net:{self._client.host}"):
            return
        delay = _LATENCY * self._server.dice.random()
        if weather.strikes("http.slow"):
            delay += 5 * self._server.dice.random()
        self._client.later(delay, self._arrive, found).is_io = True

    def _arrive(self, found: Any) -> None:
        if not self._answer.done():
            self._answer.set_result(found)

    def _reset(self) -> None:
        if not self._is_over and not self._network._weather.is_down(f"net:{self._client.host}"):
            self._client.later(_REFUSED, self._break)

    def _break(self) -> None:
        if not self._answer.done():
            self._answer.set_exception(NoAnswer("connection reset", is_sent=True))

    def close(self) -> None:
        self._is_over = True
        if self._reset in self._server.on_death:
            self._server.on_death.remove(self._reset)
