"""A service from its first moment to its last: a private home with one owner, and a database of this release."""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import structlog
import uvloop

from metastore import migrate
from metastore.settings import DatabaseSettings
from runyard import home, journal, misspelled, web
from runyard.exits import in_words
from runyard.service import Parts, run
from runyard.version import version

if TYPE_CHECKING:
    from pathlib import Path

    from runyard.settings import Settings

log = structlog.get_logger(__name__)


def serve(settings: Settings, *, address: tuple[str, int] | None, scheduler: bool, apply: Path | None = None) -> None:
    """Run the API at *address*, a *scheduler*, or both, until a signal says stop.

    Both is what ``runyard standalone`` is; it also brings the database to this release.  ``runyard apply`` puts the
    documents at *apply* there once the service is ready: the same way in as everybody's.
    """
    os.umask(0o077)
    _hide_memory()
    journal.configure(settings.log_level, human=sys.stderr.isatty())
    misspelled.warn()
    alone = address is not None and scheduler
    with ExitStack() as stack:
        home.prepare(settings.home)
        if scheduler or settings.log_store is None:  # else it is for a scheduler to make: /health/ready looks for it
            home.prepare_logs(settings.logs)
        if scheduler:
            stack.enter_context(home.locked(settings.home))
        bound = None
        if address is not None:
            bound = stack.enter_context(web.listen(*address, settings.allowed_hosts))
        stack.enter_context(in_words())
        if alone:
            migrate.upgrade(settings.url)
        else:
            migrate.check(settings.url)
        parts = Parts(bound=bound, scheduler=scheduler)
        greeting: set[asyncio.Task[None]] = set()

        async def on_ready() -> None:
            # What was imported stays: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            gc.enable()
            log.info("ready", parts=[name for name, there in (("api", bound), ("scheduler", scheduler)) if there])
            if bound is not None:
                url = web.url_of(bound)
                said = _greeting(settings, url, scheduler=scheduler)
                # Not awaited: a signal ends the service also while documents are applied.
                greeting.add(asyncio.create_task(_greet(settings, url, said, apply)))

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings, parts, on_ready))


def _greeting(settings: Settings, url: str, *, scheduler: bool) -> str:
    key = home.key_path(settings.home)
    database = DatabaseSettings(settings.url)
    lines = [
        f"Runyard {version()} is ready.",
        "",
        f"  API       {url}/api/v1",
        f"  Docs      {url}/docs",
        f"  Key       {key}",
        f"  Database  {database.path if database.dialect == 'sqlite' else database.shown}",
    ]
    if scheduler:
        lines.append(f"  Tasks     {', '.join(settings.executors)}; code in {settings.code}")
    lines += [
        "",
        f'  curl -H "Authorization: Bearer $(cat {shlex.quote(str(key))})" {url}/api/v1/dags',
        "",
        "Ctrl-C stops it.",
        "",
    ]
    return "\n".join(lines)


async def _greet(settings: Settings, url: str, said: str, apply: Path | None) -> None:
    """Say where everything is once the documents in *apply* are there: the first call may be for one of them."""
    if apply is not None:
        try:
            await _apply(settings, url, apply)
        except OSError as error:
            log.warning("the documents could not be applied", place=str(apply), error=str(error))
    sys.stdout.write(said)
    sys.stdout.flush()


async def _apply(settings: Settings, url: str, place: Path) -> None:
    """Put the documents in *place* there in a process of its own, which leaves nothing behind in this one."""
    environ = os.environ | {"RUNYARD_API_URL": url, "RUNYARD_HOME": str(settings.home)}
    environ.pop("RUNYARD_API_KEY", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "runyard", "apply", "--file", str(place), env=environ
    )
    await process.wait()


def _hide_memory() -> None:
    """Keep keys out of core dumps, and other processes of this user out of our memory."""
    import ctypes  # noqa: PLC0415  # only services need it, and it is slow to load

    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


_PR_SET_DUMPABLE: Final = 4
