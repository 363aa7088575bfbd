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
from executors.base import ExecutorConfig, HealthStatus
from metastore.settings import DatabaseSettings
from runyard import admin_key, web
from runyard.exits import Exit, Stop
from runyard.version import version
from runyard.world import SystemClock, SystemEntropy
from scheduler.loop import Scheduler
from scheduler.settings import SchedulerSettings

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

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
        active = load_executors(settings) if parts.scheduler else []
        if active:
            scheduler = Scheduler(
                store=store,
                executors=active,
                clock=clock,
                entropy=entropy,
                registry=registry,
                settings=SchedulerSettings(host=os.uname().nodename),
            )
            await scheduler.start()
            stack.push_async_callback(scheduler.stop, drain=_DRAIN)
        ended: asyncio.Task[None] | None = None
        if parts.bound is not None:
            app = create_app(
                store=store,
                clock=clock,
                entropy=entropy,
                settings=_api(settings),
                version=version(),
                registry=registry,
                probes={f"executor {executor.name}": partial(_is_up, executor) for executor in active},
            )
            server = web.Server(app)
            ended = asyncio.create_task(server.serve(sockets=[parts.bound]))
            stack.push_async_callback(_close, server, app, ended)
            await server.settled.wait()
            if not server.started:
                await ended
                raise Stop(Exit.CRASHED, "The API did not start; the log says why.")
        await on_ready()
        waits = {asyncio.create_task(asked.wait()), *([ended] if ended else ())}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not asked.is_set():
            raise Stop(Exit.CRASHED, "The API ended by itself; the log says why.")
        log.info("stopping")
    log.info("stopped")


def load_executors(settings: Settings) -> list[Executor]:
    """Return the executors that *settings* name, the default one first."""
    return [
        executors.make(
            ExecutorConfig(
                name=name,
                home=settings.home,
                code_dir=settings.code,
                log_dir=settings.logs,
                task_python=settings.task_python,
                parallelism=settings.local_parallelism,
            )
        )
        for name in settings.executors
    ]


async def _open_store(settings: Settings, clock: SystemClock, entropy: SystemEntropy) -> Store:
    database = DatabaseSettings(settings.url)
    if database.dialect == "sqlite":
        from metastore.sqlite import SqliteStore  # noqa: PLC0415  # each database's driver only where it is used

        return await SqliteStore.open(database.path, clock=clock, entropy=entropy)
    from metastore.postgres import PostgresStore  # noqa: PLC0415  # as above

    return await PostgresStore.open(database, clock=clock, entropy=entropy)


def _api(settings: Settings) -> ApiSettings:
    return ApiSettings(
        log_dir=settings.logs, executors=settings.executors, allowed_hosts=(*LOOPBACK, *settings.allowed_hosts)
    )


def _is_up(executor: Executor) -> bool:
    return executor.health().status is not HealthStatus.DOWN


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
