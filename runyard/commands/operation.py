"""What an operator looks at."""

from __future__ import annotations

import platform
from typing import Annotated

import typer

from runyard import show
from runyard.client import connect, path_of
from runyard.version import version as release

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def executors(*, json: AsJson = False) -> None:
    """List the executors and how they are."""
    items = connect().items(path_of("executors"), 1000)
    if json:
        show.as_json(items)
        return
    columns = [
        (name.upper().replace("_", " "), lambda one, name=name: one[name]) for name in (items[0] if items else ())
    ]
    show.table(items, columns, "No executor has said hello yet.")


@app.command()
def version(*, json: AsJson = False) -> None:
    """Say which release this is."""
    if json:
        show.as_json({"runyard": release(), "python": platform.python_version()})
    else:
        show.say(f"runyard {release()} (Python {platform.python_version()})")
