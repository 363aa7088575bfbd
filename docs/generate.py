"""Writes the pages that are drawn from the code; ``make docs`` runs it, a test sees that nobody forgot to.

What stands between ``<!-- generated: NAME -->`` and ``<!-- end -->`` belongs to this script.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
from pydantic import BaseModel

from dag import trigger_rules as trigger_rule_module
from dag.durations import format_duration
from dag.kinds import HttpSpec, PythonSpec
from dag.spec import DagSpec, TaskSettings, TaskSpec
from dag.states import ATTEMPT_STEPS, RUN_STEPS, TASK_STEPS
from executors.conformance import Hooks, scenarios
from executors.conformance.cases import CASES, ELSEWHERE
from runyard import exits, settings
from runyard.cli import ENTRIES, app

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from enum import StrEnum

HERE: Final = Path(__file__).parent
_SECTION: Final = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def diagram(table: Mapping[Any, Mapping[Any, StrEnum]]) -> str:
    """Return one state table as a Mermaid diagram: an arrow for every pair of states, labelled with its steps."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {next(iter(table))}"]
    for state, steps in table.items():
        arrows: dict[StrEnum, list[str]] = {}
        for step, target in steps.items():
            arrows.setdefault(target, []).append(step.value)
        lines += [f"    {state} --> {target}: {', '.join(names)}" for target, names in arrows.items()]
        if not set(steps) - {"clear"}:
            lines.append(f"    {state} --> [*]")
    return "\n".join([*lines, "```"])


def settings_table() -> str:
    """Return every environment variable with its default."""
    rows = ["| variable | default | what it says |", "|---|---|---|"]
    seen = set()
    for source in (settings.Settings, settings.WorkerSettings, settings.ClientSettings):
        for name, field in source.model_fields.items():
            if name in seen:
                continue
            seen.add(name)
            default = "" if field.default_factory or name == "task_python" else _default(field.default)
            rows.append(f"| `RUNYARD_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def exit_table() -> str:
    """Return every exit code with its meaning, which is the comment that stands above it."""
    source = Path(exits.__file__).read_text()
    rows = ["| code | name | meaning |", "|---|---|---|"]
    for comment, name, code in re.findall(r"(?:    #: (.*)\n)?    ([A-Z_]+) = (\d+)\n", source):
        rows.append(f"| {code} | {name.lower().replace('_', ' ')} | {comment.replace('``', '`') or 'All is well.'} |")
    return "\n".join(rows)


def command_pages() -> str:
    """Return every command with its arguments and options."""
    group = typer.main.get_group(app)
    context = group.make_context("runyard", [], resilient_parsing=True)
    parts: list[str] = []
    for name in ENTRIES:
        parts += _command(context, group.get_command(context, name), f"runyard {name}")
    return "\n".join(parts).rstrip()


def _command(context: Any, command: Any, path: str) -> Iterable[str]:
    yield f"### `{path}`\n"
    yield f"{(command.help or '').strip()}\n"
    if hasattr(command, "commands"):
        for name in command.commands:
            yield from _command(context, command.get_command(context, name), f"{path} {name}")
        return
    rows = [_parameter(parameter) for parameter in command.params if not parameter.hidden and parameter.name != "help"]
    if rows:
        yield "| | |\n|---|---|"
        yield "\n".join(rows) + "\n"


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        metavar = parameter.metavar or parameter.name.upper()
        return f"| `{metavar}` | {parameter.help or ''} |"
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    metavar = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
    default = parameter.default
    said = (
        ""
        if default in (None, False, ()) or parameter.is_flag or callable(default)
        else f" Default: `{_text(default)}`."
    )
    return f"| {names}{metavar} | {parameter.help or ''}{said} |"


def _text(default: object) -> str:
    return ", ".join(str(one) for one in default) if isinstance(default, list | tuple) else str(default)


def _default(default: object) -> str:
    text = _text(default) if default is not None else ""
    return f"`{text}`" if text else ""


def fields_table(model: type[BaseModel], without: type[BaseModel] | None = None) -> str:
    """Return every field of *model* with its default, but for those that *without* has too."""
    rows = ["| field | default | what it says |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        if without is not None and name in without.model_fields:
            continue
        default = "**required**" if field.is_required() else _as_json(field.get_default(call_default_factory=True))
        rows.append(f"| `{field.alias or name}` | {default} | {field.description} |")
    return "\n".join(rows)


def _as_json(default: Any) -> str:
    if default is None or default in ((), {}) or isinstance(default, BaseModel):
        return ""
    if isinstance(default, timedelta):
        return f"`{format_duration(default)}`"
    return f"`{json.dumps(default)}`"


def trigger_rules() -> str:
    """Return the table that stands at the top of its module."""
    (table,) = re.findall(r"^=+ +=.*^=[= ]+$", trigger_rule_module.__doc__ or "", re.MULTILINE | re.DOTALL)
    return f"```text\n{table}\n```"


def hooks_table() -> str:
    """Return every hook that the harness of an executor may have."""
    rows = ["| hook | what it does |", "|---|---|"]
    for name, member in vars(Hooks).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            rows.append(f"| `{name}` | {member.__doc__} |")
    return "\n".join(rows)


def cases_table() -> str:
    """Return every case of the conformance kit with the scenarios that check it."""
    rows = ["| no. | case | checked by | needs |", "|---|---|---|---|"]
    for number, case in CASES.items():
        of_it = [one for one in scenarios() if number in one.numbers]
        names = "<br>".join(f"`{one.name}`" for one in of_it) or f"no scenario: {ELSEWHERE[number]}"
        needs = "<br>".join(" ".join(f"`{need}`" for need in one.needs) for one in of_it)
        rows.append(f"| {number} | {case} | {names} | {needs} |")
    return "\n".join(rows)


SECTIONS: Final = {
    "dag-fields": lambda: fields_table(DagSpec),
    "task-fields": lambda: fields_table(TaskSpec, without=TaskSettings),
    "settings-fields": lambda: fields_table(TaskSettings),
    "python-fields": lambda: fields_table(PythonSpec),
    "http-fields": lambda: fields_table(HttpSpec),
    "trigger-rules": trigger_rules,
    "run-states": lambda: diagram(RUN_STEPS),
    "task-states": lambda: diagram(TASK_STEPS),
    "attempt-states": lambda: diagram(ATTEMPT_STEPS),
    "settings": settings_table,
    "exit-codes": exit_table,
    "commands": command_pages,
    "conformance-hooks": hooks_table,
    "conformance-cases": cases_table,
}


def current(text: str) -> str:
    """Return *text* with its generated sections as they should be now."""
    return _SECTION.sub(lambda found: f"{found[1]}{SECTIONS[found['name']]()}\n{found[3]}", text)


def main() -> None:
    """Write every page whose sections have changed."""
    for page in sorted(HERE.rglob("*.md")):
        text = page.read_text()
        if (new := current(text)) != text:
            page.write_text(new)
            sys.stdout.write(f"wrote {page.relative_to(HERE)}\n")


if __name__ == "__main__":
    main()
