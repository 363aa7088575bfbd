"""A real API over a real store, without a network: requests go in as ASGI messages."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx
from prometheus_client import CollectorRegistry

from api.app import create_app
from api.auth import NewKey, new_key
from api.settings import ApiSettings
from metastore.commands.keys import create_key
from scheduler.door import MetastoreDoor
from scheduler.metrics import SchedulerMetrics
from tests.metastore.flow import Flow
from tests.world import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from fastapi import FastAPI

    from metastore.store import Store
    from tests.world import SeededEntropy

T = TypeVar("T")

HOST: Final = "localhost"
#: How long a test waits for what should come at once.
SOON: Final = 10.0
DICE: Final[dict[str, Any]] = {
    "params": {"type": "object", "properties": {"sides": {"type": "integer", "minimum": 2, "default": 6}}},
    "tasks": {
        "roll": {"command": ["true"], "executor": "local"},
        "report": {"command": ["true"], "depends_on": ["roll"], "executor": "local"},
    },
}


class RunningClock(FakeClock):
    """A clock that runs, and can be moved besides."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def now(self) -> Any:
        return super().now() + timedelta(seconds=time.monotonic() - self._began)

    def monotonic(self) -> float:
        return super().monotonic() + time.monotonic() - self._began


@dataclass
class Api:
    """The API, its store, and keys for it."""

    store: Store
    clock: RunningClock
    entropy: SeededEntropy
    log_dir: Path
    settings: ApiSettings = field(init=False)
    app: FastAPI = field(init=False)
    flow: Flow = field(init=False)

    def __post_init__(self) -> None:
        self.flow = Flow(self.store, self.clock)
        self.start()

    def start(self, **settings: Any) -> FastAPI:
        """Make the app anew, as after a restart or on another replica."""
        executors = {"executors": ("local", "sequential", "dramatiq")}
        self.settings = ApiSettings(log_dir=self.log_dir, **executors | settings)
        self.app = create_app(
            store=self.store, clock=self.clock, entropy=self.entropy, settings=self.settings, door=self.door
        )
        return self.app

    @property
    def door(self) -> MetastoreDoor:
        """What ``runyard api`` has: it starts and ends, and admits nothing."""
        metrics = SchedulerMetrics(CollectorRegistry())
        return MetastoreDoor(self.store, list, lambda _: None, metrics, lease=self.settings.worker_lease)

    async def key(
        self,
        *scopes: str,
        prefix: str | None = None,
        queues: list[str] | None = None,
        expires_in: timedelta | None = None,
    ) -> NewKey:
        key = new_key(self.entropy)
        await self.store.write(
            create_key,
            key_id=key.key_id,
            name="test",
            secret_hash=key.secret_hash,
            scopes=list(scopes),
            dag_prefix=prefix,
            queues=queues,
            expires_at=None if expires_in is None else self.clock.now() + expires_in,
            actor="system",
        )
        return key

    def client(self, key: NewKey | None = None, app: FastAPI | None = None) -> httpx.AsyncClient:
        headers = {} if key is None else {"Authorization": f"Bearer {key.text}"}
        transport = httpx.ASGITransport(app or self.app)
        return httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}", headers=headers)

    async def caller(self, *scopes: str, prefix: str | None = None) -> httpx.AsyncClient:
        return self.client(await self.key(*scopes, prefix=prefix))

    async def put(self, dag_id: str, document: Mapping[str, Any] = DICE) -> None:
        async with await self.caller("define") as author:
            answer = await author.put(f"/api/v1/dags/{dag_id}", json=dict(document))
        assert answer.is_success, answer.text

    @asynccontextmanager
    async def stream(
        self, path: str, key: NewKey, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Stream, None]:
        """Open a streamed answer, and go away from it at the end."""
        stream = Stream(self.app, path, {"authorization": f"Bearer {key.text}"} | dict(headers or {}))
        try:
            yield stream
        finally:
            await stream.close()


class Stream:
    """One GET whose answer is read as it comes."""

    def __init__(self, app: FastAPI, path: str, headers: Mapping[str, str]) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._started: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"host", HOST.encode()), *((n.lower().encode(), v.encode()) for n, v in headers.items())],
            "server": (HOST, 80),
            "client": ("127.0.0.1", 1),
        }
        self._task = asyncio.create_task(self._run(app, scope))
        self._text = ""

    async def _run(self, app: FastAPI, scope: dict[str, Any]) -> None:
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._started.set_result(message)
            elif message["body"]:
                self._pieces.put_nowait(message["body"])

        try:
            await app(scope, receive, send)
        finally:
            self._pieces.put_nowait(None)

    async def status(self) -> int:
        status: int = (await asyncio.wait_for(asyncio.shield(self._started), SOON))["status"]
        return status

    async def headers(self) -> dict[str, str]:
        message = await asyncio.wait_for(asyncio.shield(self._started), SOON)
        return {name.decode(): value.decode() for name, value in message["headers"]}

    async def piece(self) -> bytes | None:
        """Return what comes next; None is the end."""
        return await asyncio.wait_for(self._pieces.get(), SOON)

    async def rest(self) -> bytes:
        """Return everything up to the end."""
        whole = b""
        while (piece := await self.piece()) is not None:
            whole += piece
        return whole

    async def events(self) -> AsyncIterator[dict[str, str]]:
        """Yield server-sent events, comments as ``{"": …}``, until the stream ends."""
        while True:
            while "\n\n" in self._text:
                block, _, self._text = self._text.partition("\n\n")
                yield dict(_field(line) for line in block.split("\n"))
            piece = await self.piece()
            if piece is None:
                return
            self._text += piece.decode()

    async def close(self) -> None:
        self._gone.set()
        await asyncio.wait_for(self._task, SOON)


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.removeprefix(" ") if name else value


async def until(probe: Callable[[], Awaitable[T]], what: Callable[[T], bool] = bool) -> T:
    """Return what *probe* finds once it is what is waited for; the metastore has no event that a test could await."""
    for _ in range(round(SOON / 0.01)):
        if what(found := await probe()):
            return found
        await asyncio.sleep(0.01)
    raise TimeoutError


async def take(events: AsyncIterator[dict[str, str]], number: int) -> list[dict[str, str]]:
    """Return the next *number* of *events*."""
    return [await anext(events) for _ in range(number)]


def pointers(answer: httpx.Response) -> list[tuple[str, str]]:
    """Return the places and rules that a refusal names."""
    return [(error["pointer"], error["code"]) for error in answer.json()["errors"]]


def ids(items: Iterable[Mapping[str, Any]], name: str = "dag_id") -> list[str]:
    return [item[name] for item in items]
