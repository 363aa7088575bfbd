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
    items = connect().get(path_of("executors"))["items"]
    if json:
        show.as_json(items)
        return
    show.table(
        [{"executor": one, **place} for one in items for place in one["places"] or [{}]],
        [
            ("EXECUTOR", lambda place: place["executor"]["name"]),
            ("DEFAULT", lambda place: "default" if place["executor"]["default"] else ""),
            ("STATUS", lambda place: place.get("status") or place["executor"]["status"]),
            ("HOST", lambda place: place.get("host")),
            ("SLOTS", lambda place: place.get("slots")),
            ("USED", lambda place: place.get("used")),
            ("DETAIL", lambda place: place.get("detail")),
        ],
        "No executor has said hello yet.",
    )


@app.command()
def version(*, json: AsJson = False) -> None:
    """Say which release this is."""
    if json:
        show.as_json({"runyard": release(), "python": platform.python_version()})
    else:
        show.say(f"runyard {release()} (Python {platform.python_version()})")
