"""All parts of a service on one event loop: opened in order, closed in the opposite one."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from api.app import create_app, stop_streams
from api.settings import LOOPBACK, ApiSettings
from executors import registry as executors
from executors import spawn
from executors.base import ExecutorConfig
from executors.local import Local
from metastore.queries import work
from metastore.settings import DatabaseSettings
from runyard import admin_key, web
from runyard.exits import Exit, Stop
from runyard.health import Pulse
from runyard.reaper import reap_strangers
from runyard.version import version
from runyard.world import SystemClock, SystemEntropy
from scheduler.attendant import Attendant
from scheduler.loop import Scheduler
from scheduler.settings import SchedulerSettings

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from fastapi import FastAPI

    from executors.base import Executor
    from metastore.store import Store
    from runyard.settings import Settings

log = structlog.get_logger(__name__)

#: How long running tasks may go on by themselves once the service was asked to stop.
_DRAIN: Final = timedelta(seconds=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Which parts of Runyard this process is."""

    #: Where the API listens; None: no API.
    bound: socket.socket | None = None
    #: A scheduler with its executors.
    scheduler: bool = False

    @property
    def name(self) -> str:
        """The command that is these parts."""
        if self.bound is None:
            return "scheduler"
        return "standalone" if self.scheduler else "api"


async def run(settings: Settings, parts: Parts, on_ready: Callable[[], Awaitable[None]]) -> None:
    """Be *parts* until a signal says stop, or Stop when one of them ends by itself."""
    clock, entropy = SystemClock(), SystemEntropy()
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    asked = _listen_to_signals()
    async with AsyncExitStack() as stack:
        store = await _open_store(settings, clock, entropy)
        stack.push_async_callback(store.close)
        if parts.bound is not None:
            await admin_key.ensure(store, settings.home, entropy)
            if settings.worker_key_file is not None:
                await admin_key.ensure_worker_key(store, settings.worker_key_file, entropy)
        active = load_executors(settings)
        scheduler: Scheduler | None = None
        if parts.scheduler:
            scheduler = Scheduler(
                store=store,
                executors=[*active, *await _caretakers(settings, store, active)],
                clock=clock,
                entropy=entropy,
                registry=registry,
                settings=SchedulerSettings(host=os.uname().nodename, lease=settings.lease),
            )
            await scheduler.start()
            stack.push_async_callback(scheduler.stop, drain=_DRAIN)
            door = scheduler.door
        else:
            active = [executor for executor in active if executor.by_queue]
            attendant = Attendant(
                store=store, executors=active, clock=clock, entropy=entropy, registry=registry, lease=settings.lease
            )
            await attendant.start()
            stack.push_async_callback(attendant.stop)
            door = attendant.door
        app: FastAPI | None = None
        ended: asyncio.Task[None] | None = None
        if parts.bound is not None:
            app = create_app(
                store=store,
                clock=clock,
                entropy=entropy,
                settings=_api(settings),
                version=version(),
                registry=registry,
                active=active,
                door=door,
            )
            ended = await _serve(app, parts.bound, stack)
        await stack.enter_async_context(Pulse(settings.home, parts.name, clock, partial(_look, app, scheduler)))
        reaper = asyncio.create_task(reap_strangers(), name="reaper")
        stack.callback(reaper.cancel)
        await on_ready()
        waits = {asyncio.create_task(asked.wait()), *([ended] if ended else ())}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not asked.is_set():
            raise Stop(Exit.CRASHED, "The API ended by itself; the log says why.")
        log.info("stopping")
    log.info("stopped")


def load_executors(settings: Settings) -> list[Executor]:
    """Return the executors that *settings* name, the default one first."""
    return [_make(settings, name, settings.local_parallelism) for name in settings.executors]


def _make(settings: Settings, name: str, parallelism: int) -> Executor:
    return executors.make(
        ExecutorConfig(
            name=name,
            home=settings.home,
            code_dir=settings.code,
            log_dir=settings.logs,
            task_python=settings.task_python,
            parallelism=parallelism,
            http_allow=settings.http_allow,
            http_ports=settings.http_ports,
            options={"broker_url": settings.broker, "prefix": settings.queue_prefix},
        )
    )


async def _caretakers(settings: Settings, store: Store, active: Sequence[Executor]) -> list[Executor]:
    """Return who looks after what is left at the agent of this home where none of *active* places there (0028).

    It has no slots, so that nothing is admitted to it.  Only an agent can prove what became of what lies there, and on
    SQLite there is no lease that would end instead.
    """
    if any(isinstance(executor, Local) for executor in active):
        return []
    agent_id = spawn.known_id(settings.home)
    left = [] if agent_id is None else await store.read(work.placed, [agent_id])
    if not left:
        return []
    log.warning("attempts are left at an agent that no configured executor has", attempts=len(left), agent=agent_id)
    return [_make(settings, "local", 0)]


async def _open_store(settings: Settings, clock: SystemClock, entropy: SystemEntropy) -> Store:
    database = DatabaseSettings(settings.url)
    if database.dialect == "sqlite":
        from metastore.sqlite import SqliteStore  # noqa: PLC0415  # each database's driver only where it is used

        return await SqliteStore.open(database.path, clock=clock, entropy=entropy)
    from metastore.postgres import PostgresStore  # noqa: PLC0415  # as above

    return await PostgresStore.open(database, clock=clock, entropy=entropy)


def _api(settings: Settings) -> ApiSettings:
    return ApiSettings(
        log_dir=settings.logs,
        executors=settings.executors,
        allowed_hosts=(*LOOPBACK, *settings.allowed_hosts),
        worker_lease=settings.lease,
    )


async def _serve(app: FastAPI, bound: socket.socket, stack: AsyncExitStack) -> asyncio.Task[None]:
    """Answer requests on *bound* until *stack* is closed; return what ends when the API does."""
    server = web.Server(app)
    ended = asyncio.create_task(server.serve(sockets=[bound]))
    stack.push_async_callback(_close, server, app, ended)
    await server.settled.wait()
    if not server.started:
        await ended
        raise Stop(Exit.CRASHED, "The API did not start; the log says why.")
    return ended


async def _look(app: FastAPI | None, scheduler: Scheduler | None) -> list[str]:
    """Return what is wrong with the parts that this process is."""
    wrong = [] if scheduler is None else scheduler.overdue()
    if app is not None and not await app.state.readiness.ready():
        wrong.append("not ready; the log says why")
    return wrong


async def _close(server: web.Server, app: FastAPI, ended: asyncio.Task[None]) -> None:
    """Take no more requests, end the long answers, let the short ones finish."""
    stop_streams(app)
    server.should_exit = True
    await ended


def _listen_to_signals() -> asyncio.Event:
    """Return what the first SIGTERM or SIGINT sets; the second one ends the process at once."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if asked.is_set():
            # As after a crash: the agent and its tasks go on, the next service adopts them.
            sys.stderr.write("runyard: ended at once\n")
            os._exit(128 + number)
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return asked
