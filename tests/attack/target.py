"""The API on a port of its own, with a past: what an attacker finds who may see everything."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from uuid import UUID

from api.app import stop_streams
from api.auth import Scope, new_key
from dag.tickets import sign
from metastore.commands.keys import create_key
from metastore.commands.workers import signing_key
from runyard import web
from tests.api.remote import TASK, Worker, admit, offer
from tests.api.service import DICE, Api, RunningClock
from tests.conftest import open_store
from tests.world import SeededEntropy
from worker import logs

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    import httpx

    from api.auth import NewKey
    from metastore.records import RunRecord

T = TypeVar("T")

#: The DAG of what ended long ago.
PAST: Final = "dice"
#: Every worker shows the same token here and every attempt has the same key: one header is enough for an attacker.
TOKEN: Final = "T" * 43
KEY: Final = "K" * 43
#: An attempt that nobody has.
NOWHERE: Final = str(UUID(int=7))


@dataclass
class Target:
    """A server on an event loop in a thread of its own, and the hands that give it something to lose."""

    url: str
    folder: Path
    api: Api = field(init=False)
    #: The attacker's own, with every scope.
    key: NewKey = field(init=False)
    address: str = field(init=False, default="")
    worker: Worker = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _ready: threading.Event = field(init=False, default_factory=threading.Event)
    _over: asyncio.Event = field(init=False)
    _thread: threading.Thread = field(init=False)
    _signing: bytes = field(init=False, default=b"")
    _work: str = field(init=False, default="work")
    _numbers: int = field(init=False, default=0)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="target")
        self._thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Have *work* done beside the server, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        clock, entropy = RunningClock(), SeededEntropy()
        store = await open_store(self.url, clock, entropy)
        log_dir = self.folder / "logs"
        log_dir.mkdir()
        self.api = Api(store, clock, entropy, log_dir)
        # Streams end soon, leases do not: nothing renews them between two requests of an attacker.
        short = {"stream_age": timedelta(seconds=0.05), "heartbeat": timedelta(seconds=0.02)}
        app = self.api.start(worker_lease=timedelta(days=1), **short)
        bound = web.listen("127.0.0.1", 0, ())
        self.address = web.url_of(bound)
        server = web.Server(app)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        await server.settled.wait()
        await self._seed()
        self._ready.set()
        await self._over.wait()
        stop_streams(app)
        server.should_exit = True
        await serving
        bound.close()
        await store.close()

    async def _seed(self) -> None:
        api = self.api
        self.key = await api.key(*Scope)
        self._signing = await api.store.write(signing_key)
        await api.flow.slots()
        await api.put(PAST, {**DICE, "description": "a second version"})
        await api.put(PAST)
        await self._past("monday")
        await api.flow.cancel(await api.flow.create(dag_id=PAST, run_id="tuesday"))
        await api.flow.create(dag_id=PAST, run_id="wednesday")
        await self._employ()

    async def _employ(self) -> None:
        """Have a worker that serves."""
        self.worker = Worker(self.api, await self.api.key("work"), token=TOKEN)
        assert (await self.worker.register(slots=10_000)).is_success

    async def _past(self, run_id: str) -> RunRecord:
        """Have a run with two tasks succeed, with a log each."""
        flow = self.api.flow
        run, begun = await flow.trigger(dag_id=PAST, run_id=run_id)
        while begun:
            attempt_id = begun.pop().attempt_id
            await flow.start(str(attempt_id))
            file = logs.path(self.api.log_dir, str(attempt_id))
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"The total is 7\n\xff\x00\n" * 100)
            begun += (await flow.end(str(attempt_id), output={"total": 7}, more=True)).admitted
        return run

    def ticket(self, attempt_id: str) -> str:
        return sign(self._signing, attempt_id)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def spare_dag(self) -> str:
        """Return a DAG that nobody will miss."""
        await self.api.put(dag_id := f"spare{self._number()}")
        return dag_id

    async def spare_run(self) -> str:
        run = await self.api.flow.create(dag_id=PAST, run_id=f"spare{self._number()}")
        return run.run_id

    async def spare_key(self) -> str:
        key = new_key(self.api.entropy)
        await self.api.store.write(
            create_key,
            key_id=key.key_id,
            name="spare",
            secret_hash=key.secret_hash,
            scopes=["read"],
            dag_prefix=None,
            queues=None,
            expires_at=None,
            actor="system",
        )
        return key.key_id

    async def spare_worker(self) -> str:
        if not (await (worker := self._colleague()).register()).is_success:  # a call has revoked the worker's key
            await self._employ()
            answer = await (worker := self._colleague()).register()
            assert answer.is_success, answer.text
        return worker.worker_id

    def _colleague(self) -> Worker:
        return Worker(self.api, self.worker.key, token=TOKEN, boot_id=self.worker.boot_id)

    async def queued(self) -> str:
        """Return an attempt that waits for a worker."""
        tasks = {"roll": TASK, "report": TASK | {"depends_on": ["roll"]}}
        try:
            return await offer(self.api, tasks, dag_id=self._work)
        except RuntimeError:  # a call has drained the worker or paused the DAG: what answers say is drawn as well
            self._work = f"work{self._number()}"
            await self._employ()
            return await offer(self.api, tasks, dag_id=self._work)

    async def running(self) -> str:
        """Return an attempt that the worker runs."""
        return await self._started(await self.queued())

    async def downstream(self) -> str:
        """Return an attempt that the worker runs, of a task that has an input."""
        first = await self.running()
        assert (await self.worker.finish(first, output=json.dumps({"total": 7}))).is_success
        return await self._started(await admit(self.api, "report"))

    async def _started(self, attempt_id: str) -> str:
        answer = await self._start(attempt_id)
        if not answer.is_success:  # a call has registered another process of the worker
            await self._employ()
            answer = await self._start(attempt_id)
            assert answer.is_success, answer.text
        return attempt_id

    async def _start(self, attempt_id: str) -> httpx.Response:
        self.worker.keys[attempt_id] = KEY
        return await self.worker.start(attempt_id)

    def counted(self) -> int:
        """Return how many requests came over the wire, or from the hands above, by the server's own count."""
        registry = self.api.app.state.services.registry
        samples = (sample for metric in registry.collect() for sample in metric.samples)
        return sum(int(one.value) for one in samples if one.name == "runyard_http_requests_total")
