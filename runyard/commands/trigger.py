"""Starting a run from the command line, and watching it."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dag.ids import new_id
from dag.states import RunState
from runyard import show
from runyard.client import connect, path_of
from runyard.exits import Exit, Stop
from runyard.watch import Lines, Logs, Screen, Silent, to_the_end
from runyard.world import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runyard.client import Api
    from runyard.watch import View

app = typer.Typer()

_WARNINGS: Final = {
    "dag_paused": "the DAG is paused; the run waits until it is unpaused",
    "run_after_in_future": "the run waits for its time",
}


@app.command()
def trigger(
    dag: Annotated[str, typer.Argument(metavar="DAG", help="The DAG's id.")],
    *,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="A param: JSON where VALUE is JSON, else text."),
    ] = None,
    params_json: Annotated[str | None, typer.Option(metavar="JSON", help="All params as one JSON object.")] = None,
    run_id: Annotated[str | None, typer.Option(help="The run's id; made by the service by default.")] = None,
    note: Annotated[str | None, typer.Option(help="A remark that is kept with the run.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Wait for the end; the exit code tells how it was.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait, and print what the tasks write.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0, help="Wait at most so many seconds.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the run as JSON.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key never starts a second run; new by default.")
    ] = None,
) -> None:
    """Start a run of a DAG."""
    clock, entropy = SystemClock(), SystemEntropy()
    body: dict[str, Any] = {"params": _params(param or (), params_json)}
    body |= {name: value for name, value in (("run_id", run_id), ("note", note)) if value is not None}
    api = connect(clock, entropy)
    run = api.send("POST", path_of("dags", dag, "runs"), body, key=idempotency_key or new_id(clock, entropy))
    for warning in run.get("warnings", ()):
        show.warn(f"warning: {_WARNINGS.get(warning, warning)}")
    if not (wait or follow):
        if json:
            show.as_json(run)
        else:
            show.say(f"{run['run_id']} is {run['state']}.")
        return
    view = Silent() if json else _view(api, run, clock, follow=follow)
    if not json:
        show.say(f"{dag} {run['run_id']}")
    try:
        ended = to_the_end(api, run, view, clock, timeout)
    except KeyboardInterrupt:
        hint = f"stop it with: runyard cancel {dag} {run['run_id']}"
        raise Stop(Exit.INTERRUPTED, "No longer watching; the run goes on.", hint) from None
    if json:
        show.as_json(ended)
    else:
        _tell(api, ended)
    if ended["state"] != RunState.SUCCESS:
        raise typer.Exit(Exit.FAILED)


def _view(api: Api, run: Mapping[str, Any], clock: SystemClock, *, follow: bool) -> View:
    if follow:
        return Logs(api, run)
    console = show.console()
    return Screen(console, clock) if console.is_terminal else Lines()


def _tell(api: Api, run: Mapping[str, Any]) -> None:
    took = show.lasted(run)
    show.say(f"{run['state']}{f' after {took}' if took else ''}", show.STYLES.get(run["state"], ""))
    if run["state"] != RunState.FAILED:
        return
    path = path_of("dags", run["dag_id"], "runs", run["run_id"], "tasks")
    for task in api.items(path, 5, state="failed"):
        show.warn(f"{task['task_id']}: runyard logs {run['dag_id']} {run['run_id']} {task['task_id']}")


def _params(pairs: Sequence[str], whole: str | None) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if whole is not None:
        try:
            params = jsonlib.loads(whole)
        except ValueError as error:
            raise Stop(Exit.USAGE, f"--params-json is not JSON: {error}.") from None
        if not isinstance(params, dict):
            raise Stop(Exit.USAGE, "--params-json is not an object.", """write: --params-json '{"name": "value"}'""")
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Stop(Exit.USAGE, f"--param {pair!r} is not NAME=VALUE.", "write: --param day=2026-01-31")
        params[name] = _value(value)
    return params


def _value(text: str) -> Any:
    try:
        return jsonlib.loads(text, parse_constant=str)
    except ValueError:
        return text
