"""The command line.  A command's module is imported when it is called, so that ``runyard --help`` is quick."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from runyard.exits import Stop


class Entry(NamedTuple):
    """Where a command lives, and what ``--help`` says of it."""

    module: str
    help: str
    panel: str


_SERVICES: Final = "Services"
_DAGS: Final = "DAGs"
_RUNS: Final = "Runs"
_OPERATION: Final = "Operation"

#: In the order of ``--help``.
ENTRIES: Final = {
    "standalone": Entry("runyard.commands.services", "Run everything in one service.", _SERVICES),
    "api": Entry("runyard.commands.services", "Run the API alone, on Postgres.", _SERVICES),
    "scheduler": Entry(
        "runyard.commands.services", "Run a scheduler with its executors alone, on Postgres.", _SERVICES
    ),
    "worker": Entry("runyard.commands.worker", "Take tasks from a broker and run them on this host.", _SERVICES),
    "db": Entry("runyard.commands.database", "Bring the database to this release, or look where it is.", _SERVICES),
    "apply": Entry("runyard.commands.dags", "Create or update DAGs from files.", _DAGS),
    "dags": Entry("runyard.commands.dags", "List the DAGs.", _DAGS),
    "pause": Entry("runyard.commands.dags", "Let a DAG start no more runs.", _DAGS),
    "unpause": Entry("runyard.commands.dags", "Let a DAG start runs again.", _DAGS),
    "trigger": Entry("runyard.commands.trigger", "Start a run of a DAG.", _RUNS),
    "runs": Entry("runyard.commands.runs", "List runs, newest first.", _RUNS),
    "tasks": Entry("runyard.commands.runs", "List the task instances of a run.", _RUNS),
    "logs": Entry("runyard.commands.runs", "Print the log of a task instance.", _RUNS),
    "cancel": Entry("runyard.commands.runs", "Ask a run to stop.", _RUNS),
    "clear": Entry("runyard.commands.runs", "Have task instances of a run run again.", _RUNS),
    "keys": Entry("runyard.commands.keys", "Create, list and revoke API keys.", _OPERATION),
    "executors": Entry("runyard.commands.operation", "List the executors and how they are.", _OPERATION),
    "workers": Entry("runyard.commands.operation", "List the workers and how they are.", _OPERATION),
    "health": Entry(
        "runyard.commands.operation", "Say whether the services of this home are well; exit with 1 if not.", _OPERATION
    ),
    "version": Entry("runyard.commands.operation", "Say which release this is.", _OPERATION),
}


class LateGroup(TyperGroup):
    """A group that knows its commands by name and imports them when they are called.

    Contexts and formatters are ``Any``: their classes are private to typer.
    """

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the base class asks with a context
        return list(ENTRIES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = ENTRIES.get(cmd_name)
        if entry is None:
            return None
        if self._listing:
            return TyperCommand(cmd_name, help=entry.help, rich_help_panel=entry.panel)
        group = typer.main.get_group(importlib.import_module(entry.module).app)
        return group.get_command(ctx, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


app = typer.Typer(
    cls=LateGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def runyard() -> None:
    """Runyard, a workflow (DAG) orchestrator that other systems drive over HTTP."""


def main() -> None:
    """Run the command line; the entry point ``runyard``."""
    try:
        app()
    except Stop as stop:
        say_last(stop)
        sys.exit(stop.code)


def say_last(stop: Stop) -> None:
    """Say why the command ends, and every way out."""
    from runyard import show  # noqa: PLC0415  # a command that ends well may do without

    if len(stop.problems) > 1 or not any(one.get("message") == stop.message for one in stop.problems):
        show.warn(f"runyard: {stop.message}")
        if stop.hint:
            show.warn(f"  {stop.hint}")
        show.problems(stop.problems)
        return
    (only,) = stop.problems
    show.warn(f"runyard: {only.get('pointer') or '/'}: {stop.message}")
    if hint := only.get("hint") or stop.hint:
        show.warn(f"  {hint}")
