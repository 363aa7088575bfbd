"""What pydantic found wrong with a document, in our words: place, rule, way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dag.fields import Wrong, kind_of, shown
from dag.references import escape

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from dag.findings import Findings

_TASK_LATER: Final = frozenset(
    {"wait", "callback", "approval", "trigger_dag", "when", "map_over", "pool", "pool_slots"}
    | {"resources", "executor_config", "image", "secrets", "inlets", "outlets", "group", "deadline"}
    | {"on_failure", "on_success"}
)
_DAG_LATER: Final = frozenset(
    {"catchup", "start_date", "end_date", "timezone", "pool", "secrets", "variables", "groups", "assets"}
    | {"outlets", "webhooks", "notifications", "deadline", "on_failure", "on_success"}
)
#: Fields that a later release may execute; this one refuses them, by where they stand.
LATER: Final = {
    "dag": _DAG_LATER,
    "defaults": _TASK_LATER,
    "task": _TASK_LATER,
    "python": frozenset({"requirements", "packages"}),
}
#: Task kinds of later releases.
LATER_KINDS: Final = ("wait", "callback", "approval", "trigger_dag")

#: What others call our fields.
_SYNONYMS: Final = {
    "id": "dag_id",
    "name": "dag_id",
    "default_args": "defaults",
    "dagrun_timeout": "run_timeout",
    "concurrency": "max_active_tasks",
    "max_active_tis_per_dag": "max_active_tasks",
    "owner": "owners",
    "upstream": "depends_on",
    "needs": "depends_on",
    "after": "depends_on",
    "dependencies": "depends_on",
    "bash_command": "command",
    "cmd": "command",
    "run": "command",
    "args": "command",
    "python_callable": "python",
    "function": "call",
    "code": "source",
    "timeout": "execution_timeout",
    "max_retries": "retries",
    "retry_exponential_backoff": "retry_backoff",
    "priority": "priority_weight",
    "queue_name": "queue",
    "environment": "env",
    "working_dir": "cwd",
    "workdir": "cwd",
    "op_args": "args",
    "verb": "method",
    "uri": "url",
    "endpoint": "url",
    "data": "body",
    "params": "query",
    "op_kwargs": "kwargs",
}
_TYPES: Final = {
    "string_type": "a text",
    "string_unicode": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "command_type": "a list of texts (or one text with shell: true)",
}
_WAYS_OUT: Final = {
    "a text": "Put it in quotes.",
    "a whole number": "Write it without quotes and without a fraction.",
    "true or false": "Write true or false, without quotes.",
    "an object": 'Write it as {"name": value}.',
}
_EXAMPLES: Final = {
    "command": '["python", "extract.py"]',
    "depends_on": '["extract"]',
    "tasks": '{"hello": {"command": ["echo", "hello"]}}',
    "tags": '["nightly"]',
    "owners": '["data-team"]',
    "env": '{"DAY": "2026-01-31"}',
    "python": '{"call": "module:function"}',
    "http": '{"method": "GET", "url": "https://example.com/"}',
    "method": '"GET"',
    "url": '"https://example.com/orders"',
    "headers": '{"Accept": "application/json"}',
    "query": '{"day": "2026-01-31"}',
    "empty": "{}",
    "params": '{"type": "object", "properties": {}}',
    "defaults": '{"retries": 2}',
    "retries": "2",
    "args": "[1, 2]",
    "kwargs": '{"day": "2026-01-31"}',
}


def explain(wrong: ValidationError, fields: Mapping[str, Collection[str]], findings: Findings) -> None:
    """Tell *findings* each error of *wrong*; *fields* are the names that exist, by where they stand."""
    told = {problem.pointer for problem in findings.problems}  # a value that no string can hold is one mistake, not two
    for error in wrong.errors(include_url=False):
        loc = _place(error["loc"])
        pointer = "".join(f"/{escape(str(part))}" for part in loc)
        if pointer not in told:
            findings.add(pointer, *_words(error, loc, fields, findings))


def _place(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return *loc* without the marks that pydantic adds: which form of ``command``, and that a key is meant."""
    marked = loc[:-1] if loc and loc[-1] == "[key]" else loc
    command = 3
    if len(marked) > command and marked[2] == "command" and marked[3] in {"<argv>", "<line>"}:
        return (*marked[:command], *marked[command + 1 :])
    return marked


def _words(
    error: ErrorDetails, loc: tuple[int | str, ...], fields: Mapping[str, Collection[str]], findings: Findings
) -> tuple[str, str, str]:
    """Return code, message and hint."""
    kind, value, facts = error["type"], error["input"], error.get("ctx", {})
    name = str(next((part for part in reversed(loc) if isinstance(part, str)), ""))
    example = f'Such as "{name}": {_EXAMPLES[name]}.' if name in _EXAMPLES else ""
    if isinstance(own := facts.get("error"), Wrong):
        return own.code, own.message, own.hint
    if kind == "extra_forbidden":
        return _unknown(name, _level(loc), fields, findings)
    if kind == "missing":
        return "required", f"{name!r} is missing.", example or "Add it."
    if wanted := _TYPES.get(kind):
        return "wrong_type", f"{name!r} takes {wanted}, not {kind_of(value)}.", example or _WAYS_OUT.get(wanted, "")
    if kind == "none_required":
        return (
            "not_supported",
            "Schedules are not supported by this release.",
            "Leave `schedule` out or null, and trigger runs over HTTP.",
        )
    if kind in {"enum", "literal_error"}:
        allowed = str(facts["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        text = shown(value) if isinstance(value, str) else kind_of(value)
        return (
            "unknown_value",
            f"{text} is no {name}.",
            findings.meant(str(value), allowed, f"Choose one of {', '.join(allowed)}."),
        )
    return _bounds(kind, name, facts, example)


def _bounds(kind: str, name: str, facts: Mapping[str, Any], example: str) -> tuple[str, str, str]:
    limit = next((facts[fact] for fact in ("ge", "le", "max_length", "min_length") if fact in facts), "")
    match kind:
        case "greater_than_equal":
            return "out_of_range", f"{name!r} is at least {limit}.", "Choose a greater number."
        case "less_than_equal":
            return "out_of_range", f"{name!r} is at most {limit:,}.", "Choose a smaller number."
        case "string_too_long":
            return "too_long", f"{name!r} has more than {limit:,} characters.", "Put it into a file of the code folder."
        case "too_long":
            return "too_many", f"{name!r} has more than {limit:,} entries.", "Leave some out, or split the DAG."
        case "too_short" | "string_too_short":
            return "empty", f"{name!r} is empty.", example or "Fill it, or leave the field out."
        case _:
            return "invalid", f"{name!r} is not valid ({kind}).", example


def _level(loc: tuple[int | str, ...]) -> str:
    """Say what kind of object holds the field at *loc*."""
    if len(loc) == 1:
        return "dag"
    if loc[0] == "defaults":
        return "defaults"
    return {3: "task"}.get(len(loc), str(loc[2]))


def _unknown(name: str, level: str, fields: Mapping[str, Collection[str]], findings: Findings) -> tuple[str, str, str]:
    known = fields.get(level, ())
    if name in LATER.get(level, ()):
        return "not_supported", f"{shown(name)} is not supported by this release.", "Leave it out."
    if name in fields["task"] and level in {"dag", "defaults"}:
        where = (
            "each task that needs it"
            if level == "defaults" or name not in fields["defaults"]
            else "`defaults` or a task"
        )
        return "unknown_field", f"{shown(name)} is a field of a task.", f"Put it into {where}."
    if name in fields["dag"] and level == "task":
        return "unknown_field", f"{shown(name)} is a field of the DAG.", "Put it beside `tasks`."
    if name == "task_id":
        return "unknown_field", "A task is named by its key in `tasks`.", "Leave task_id out."
    other = _SYNONYMS.get(name, "")
    if other in known:
        return "unknown_field", f"There is no field {shown(name)} here.", f"Did you mean {other!r}?"
    fallback = f"Here are: {', '.join(sorted(known))}." if known else "Leave it out."
    return "unknown_field", f"There is no field {shown(name)} here.", findings.meant(name, known, fallback)
