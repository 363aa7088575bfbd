"""Workers: processes that take attempts from a broker and run them on this host."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from runyard.settings import WorkerSettings

app = typer.Typer()


class Library(StrEnum):
    """Whose messages a worker takes."""

    DRAMATIQ = "dramatiq"
    CELERY = "celery"


@app.command()
def worker(
    *,
    queues: Annotated[
        str | None,
        typer.Option("--queues", "-q", metavar="A,B", help="The queues to serve; RUNYARD_WORKER_QUEUES by default."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", "-c", help="How many attempts to run at once; RUNYARD_WORKER_CONCURRENCY by default."
        ),
    ] = None,
    executor: Annotated[Library, typer.Option(help="The executor whose messages to take.")] = Library.DRAMATIQ,
    name: Annotated[str | None, typer.Option(help="What to be called; RUNYARD_WORKER_NAME by default.")] = None,
) -> None:
    """Take tasks from a broker and run them on this host.

    It needs RUNYARD_BROKER_URL, RUNYARD_API_URL and a key with the scope work, and no database. The first SIGTERM or
    Ctrl-C lets running tasks end for RUNYARD_WORKER_DRAIN seconds, the second one leaves them to the next worker.
    """
    settings = WorkerSettings.read(worker_queues=queues, worker_concurrency=concurrency, worker_name=name)
    from runyard.workers import command  # noqa: PLC0415  no usage error should take so long

    command.serve(settings, executor)
