"""DAGs from the command line: apply, list, pause."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from runyard import show
from runyard.client import Refusal, connect, path_of
from runyard.documents import Document, Unreadable, find, load
from runyard.exits import Exit

if TYPE_CHECKING:
    from runyard.client import Api

app = typer.Typer()

_TYPES: Final = {"json": "application/json", "yaml": "application/yaml"}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DagId = Annotated[str, typer.Argument(metavar="DAG", help="The DAG's id.")]


@app.command()
def apply(
    files: Annotated[
        list[Path], typer.Option("--file", "-f", metavar="FILE-or-DIR", help="A document, or a folder of them.")
    ],
    *,
    json: AsJson = False,
) -> None:
    """Create or update DAGs from files.

    Every file is tried. The exit code is 1 when a document was not accepted.
    """
    documents = load(find(files))
    api = connect()
    results = [_apply(api, document) for document in documents]
    if json:
        show.as_json(results)
    else:
        for result in results:
            _report(result)
    if any(result["result"] == "failed" for result in results):
        raise typer.Exit(Exit.FAILED)


@app.command()
def dags(
    *,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    tag: Annotated[list[str] | None, typer.Option(help="Only those with this tag; several: with all of them.")] = None,
    json: AsJson = False,
) -> None:
    """List the DAGs."""
    items = connect().items(path_of("dags"), limit, tag=tag)
    if json:
        show.as_json(items)
        return
    show.table(
        items,
        [
            ("DAG", lambda dag: dag["dag_id"]),
            ("VERSION", lambda dag: dag["version"]),
            ("PAUSED", lambda dag: "paused" if dag["paused"] else ""),
            ("TAGS", lambda dag: ", ".join(dag["tags"])),
            ("DESCRIPTION", lambda dag: dag["description"]),
        ],
        "There are no DAGs; put one there with: runyard apply -f FILE",
    )


@app.command()
def pause(dag: DagId, *, json: AsJson = False) -> None:
    """Let a DAG start no more runs."""
    _set_paused(dag, paused=True, json=json)


@app.command()
def unpause(dag: DagId, *, json: AsJson = False) -> None:
    """Let a DAG start runs again."""
    _set_paused(dag, paused=False, json=json)


def _set_paused(dag: str, *, paused: bool, json: bool) -> None:
    answer = connect().send("PATCH", path_of("dags", dag), {"paused": paused})
    if json:
        show.as_json(answer)
    else:
        show.say(f"{dag} is paused: its runs wait." if paused else f"{dag} is not paused.")


def _apply(api: Api, document: Document | Unreadable) -> dict[str, Any]:
    result: dict[str, Any] = {"file": str(document.path), "dag_id": None, "version": None, "problems": []}
    if isinstance(document, Unreadable):
        return result | {"result": "failed", "problems": [asdict(problem) for problem in document.problems]}
    result["dag_id"] = document.dag_id
    headers = {"Content-Type": _TYPES[document.media]}
    try:
        answer = api.call("PUT", path_of("dags", document.dag_id), document.raw, headers)
    except Refusal as refusal:
        if refusal.status == _UNAUTHENTICATED or refusal.code is Exit.UNAVAILABLE:
            raise  # the other files would fare no better
        problems = refusal.problems or [{"pointer": "", "message": refusal.message, "hint": refusal.hint}]
        return result | {"result": "failed", "problems": problems}
    told = answer.json()
    done = "unchanged" if not told["changed"] else "created" if answer.status_code == _CREATED else "updated"
    return result | {"result": done, "version": told["version"]}


def _report(result: dict[str, Any]) -> None:
    match result["result"]:
        case "failed":
            number = len(result["problems"])
            show.warn(f"failed     {result['file']}: {number} problem{'s' if number != 1 else ''}")
            show.problems(result["problems"])
        case "updated":
            show.say(f"version {result['version']:<3}{result['dag_id']}")
        case done:
            show.say(f"{done:<11}{result['dag_id']}")


_CREATED: Final = 201
_UNAUTHENTICATED: Final = 401
