"""Runs from the command line: list, look into, stop, do again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runyard import show
from runyard.client import connect, path_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DagId = Annotated[str, typer.Argument(metavar="DAG", help="The DAG's id.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]


@app.command()
def runs(
    dag: Annotated[str | None, typer.Argument(metavar="DAG", help="Only runs of this DAG.")] = None,
    *,
    state: Annotated[list[str] | None, typer.Option(help="Only runs in this state; may be given again.")] = None,
    limit: Limit = 20,
    json: AsJson = False,
) -> None:
    """List runs, newest first."""
    path = path_of("runs") if dag is None else path_of("dags", dag, "runs")
    items = connect().items(path, limit, state=state)
    if json:
        show.as_json(items)
        return
    show.table(
        items,
        [
            ("DAG", lambda run: run["dag_id"]),
            ("RUN", lambda run: run["run_id"]),
            ("STATE", lambda run: run["state"]),
            ("VERSION", lambda run: run["version"]),
            ("QUEUED", lambda run: show.moment(run["queued_at"])),
            ("TOOK", show.lasted),
        ],
        "There are no runs; start one with: runyard trigger DAG",
    )


@app.command()
def tasks(
    dag: DagId,
    run: RunId,
    *,
    state: Annotated[list[str] | None, typer.Option(help="Only those in this state; may be given again.")] = None,
    limit: Limit = 1000,
    json: AsJson = False,
) -> None:
    """List the task instances of a run."""
    items = connect().items(path_of("dags", dag, "runs", run, "tasks"), limit, state=state)
    if json:
        show.as_json(items)
    else:
        _tasks(items, "The run has no task instances yet.")


@app.command()
def logs(
    dag: DagId,
    run: RunId,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")],
    *,
    number: Annotated[int | None, typer.Option("--try", min=1, help="Which attempt; the last one by default.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt has ended.")] = False,
) -> None:
    """Print the log of a task instance."""
    pieces = connect().text(
        path_of("dags", dag, "runs", run, "tasks", task, "logs"), **{"try": number, "follow": follow or None}
    )
    screen = show.Screen() if sys.stdout.isatty() else None
    for piece in pieces:
        sys.stdout.write(screen.clean(piece) if screen else piece)
        sys.stdout.flush()


@app.command()
def cancel(dag: DagId, run: RunId, *, json: AsJson = False) -> None:
    """Ask a run to stop."""
    answer = connect().send("POST", path_of("dags", dag, "runs", run, "cancel"))
    if json:
        show.as_json(answer)
    else:
        show.say(f"{run} is {answer['state']}.")


@app.command()
def clear(
    dag: DagId,
    run: RunId,
    task: Annotated[list[str] | None, typer.Argument(metavar="TASK", help="Only these tasks; all by default.")] = None,
    *,
    only_failed: Annotated[
        bool, typer.Option("--only-failed", help="Only what failed or was kept from running.")
    ] = False,
    downstream: Annotated[bool, typer.Option("--downstream", help="And all that comes after them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would touch.")] = False,
    json: AsJson = False,
) -> None:
    """Have task instances of a run run again."""
    body: dict[str, Any] = {"only_failed": only_failed, "downstream": downstream, "dry_run": dry_run}
    if task:
        body["task_ids"] = task
    answer = connect().send("POST", path_of("dags", dag, "runs", run, "clear"), body)
    if json:
        show.as_json(answer)
        return
    items = answer["items"]
    show.say(f"{len(items)} task instance{'s' if len(items) != 1 else ''} {'would be' if dry_run else 'were'} cleared.")
    _tasks(items, "")


def _tasks(items: Iterable[Mapping[str, Any]], empty: str) -> None:
    show.table(
        list(items),
        [
            ("TASK", lambda task: task["task_id"]),
            ("STATE", lambda task: task["state"]),
            ("TRY", lambda task: task["try_number"] or ""),
            ("EXECUTOR", lambda task: task.get("executor")),
            ("STARTED", lambda task: show.moment(task.get("started_at"))),
            ("TOOK", show.lasted),
        ],
        empty,
    )
