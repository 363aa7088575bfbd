"""What an operator looks at."""

from __future__ import annotations

import platform
from typing import Annotated, Final

import typer

from runyard import health as wellness
from runyard import show
from runyard.client import connect, path_of
from runyard.exits import Exit, Stop
from runyard.settings import ClientSettings
from runyard.version import version as release
from runyard.world import SystemClock

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
    if queues := [{"executor": one["name"], **queue} for one in items for queue in one["queues"]]:
        show.say("")
        show.table(queues, _QUEUES, "")


_QUEUES: Final[list[show.Column]] = [
    ("QUEUE", lambda queue: queue["queue"]),
    ("EXECUTOR", lambda queue: queue["executor"]),
    ("WORKERS", lambda queue: queue["workers"]),
    ("SLOTS", lambda queue: queue["slots"]),
    ("RUNNING", lambda queue: queue["running"]),
    ("OFFERED", lambda queue: queue["queued"]),
    ("WAITING", lambda queue: queue["ready"]),
    ("SINCE", lambda queue: show.moment(queue["oldest_ready_at"])),
]


@app.command()
def workers(*, limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100, json: AsJson = False) -> None:
    """List the workers and how they are."""
    items = connect().items(path_of("workers"), limit)
    if json:
        show.as_json(items)
        return
    show.table(
        items,
        [
            ("WORKER", lambda one: one["worker_id"]),
            ("KIND", lambda one: one["kind"]),
            ("NAME", lambda one: one["name"]),
            ("STATE", lambda one: one["state"]),
            ("HOST", lambda one: one["host"]),
            ("EXECUTOR", lambda one: one["executor"]),
            ("QUEUES", lambda one: ", ".join(one["queues"])),
            ("SLOTS", lambda one: one["slots"]),
            ("RUNNING", lambda one: one["running"]),
            ("SEEN", lambda one: show.moment(one["seen_at"])),
            ("VERSION", lambda one: one["version"]),
        ],
        "No worker has registered yet.",
    )


@app.command()
def health(*, json: AsJson = False) -> None:
    """Say whether the services of this home are well; exit with 1 if not.

    For services on this host, over files in RUNYARD_HOME: no key is needed, and a scheduler or a worker, which nobody
    can send a request to, answers as well.
    """
    found = wellness.of(ClientSettings.read().home, SystemClock())
    if json:
        show.as_json([{"service": one.service, "wrong": list(one.wrong)} for one in found])
    for one in found if not json else ():
        show.say(f"{one.service}: {'; '.join(one.wrong) or 'well'}")
    if not found:
        raise Stop(Exit.FAILED, "No service of this home is running.", "start one, or set RUNYARD_HOME to its folder")
    if any(one.wrong for one in found):
        raise typer.Exit(Exit.FAILED)


@app.command()
def version(*, json: AsJson = False) -> None:
    """Say which release this is."""
    if json:
        show.as_json({"runyard": release(), "python": platform.python_version()})
    else:
        show.say(f"runyard {release()} (Python {platform.python_version()})")
