"""The services: everything in one, or its parts."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from runyard.exits import Exit, Stop
from runyard.settings import Settings

app = typer.Typer()

Host = Annotated[str, typer.Option(help="The address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")]
Home = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The private folder of the service; RUNYARD_HOME by default.")
]


@app.command()
def standalone(
    *,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    home: Home = None,
    apply: Annotated[
        Path | None, typer.Option(metavar="FILE-or-DIR", help="Documents to apply once the service is ready.")
    ] = None,
) -> None:
    """Run everything in one service.

    API, scheduler and executors, on SQLite in the home folder or on RUNYARD_DATABASE_URL. The database is brought to
    this release first.
    """
    _serve(Settings.read(home), (host, port), scheduler=True, apply=apply)


@app.command()
def api(*, host: Host = "127.0.0.1", port: Port = 8080, home: Home = None) -> None:
    """Run the API alone, on Postgres."""
    _serve(_on_postgres(Settings.read(home)), (host, port), scheduler=False)


@app.command()
def scheduler(*, home: Home = None) -> None:
    """Run a scheduler with its executors alone, on Postgres."""
    _serve(_on_postgres(Settings.read(home)), None, scheduler=True)


def _on_postgres(settings: Settings) -> Settings:
    if settings.on_sqlite:
        raise Stop(
            Exit.USAGE,
            "On SQLite, API and scheduler are one service.",
            "use runyard standalone, or set RUNYARD_DATABASE_URL to a Postgres database",
        )
    return settings


def _serve(settings: Settings, address: tuple[str, int] | None, *, scheduler: bool, apply: Path | None = None) -> None:
    # What is imported never becomes garbage, and looking for it costs a fifth of the start; ``serve`` enables it again.
    gc.disable()
    from runyard.standalone import serve  # noqa: PLC0415  # half a second, which no usage error should take

    serve(settings, address=address, scheduler=scheduler, apply=apply)
