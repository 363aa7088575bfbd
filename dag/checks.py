"""The rules of a document that look at more than one field: kinds, dependencies, references, names of executors.

They read the raw document, part by part and forgivingly: what one field has wrong must not hide what another has wrong.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from dag import graph, params, urls
from dag.explain import LATER_KINDS
from dag.fields import shown
from dag.references import Malformed, Reference, escape, parse, scan

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from dag.findings import Findings

MAX_EDGES: Final = 50_000
KINDS: Final = ("command", "python", "http", "empty")
#: Headers that say how a request travels; whoever makes it writes them.
OUR_HEADERS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
    | {"accept-encoding", "proxy-authorization", "proxy-connection"}
)

# In text that is never resolved: ${HOME} is the shell's own business, ${params.x} a mistake.
_OURS: Final = re.compile(r"(?<!\$)\$\{(?:params[.\[}]|outputs[.\[]|run[.\[]|try_number\})")
_BY_ENV: Final = 'Pass the value by env, such as "env": {"DAY": "${params.day}"}, and read the variable there.'
_LONGEST_RING: Final = 12

Tasks = dict[str, dict[str, Any]]


def check(raw: Mapping[str, Any], findings: Findings, *, dag_id: str | None, executors: Collection[str] | None) -> None:
    """Tell *findings* of every rule between fields that *raw* breaks."""
    if dag_id is not None and isinstance(raw.get("dag_id"), str) and raw["dag_id"] != dag_id:
        message = f"The document is called {shown(raw['dag_id'])}, its address says {shown(dag_id)}."
        findings.add("/dag_id", "id_mismatch", message, "Make both the same, or leave dag_id out of the document.")
    if isinstance(raw.get("params"), dict):
        findings.extend(params.check_schema(raw["params"]))
    named = raw.get("tasks")
    tasks: Tasks = (
        {key: task for key, task in named.items() if isinstance(task, dict)} if isinstance(named, dict) else {}
    )
    for task_id, task in tasks.items():
        _check_kind(task, f"/tasks/{escape(task_id)}", findings)
    ids = frozenset(key for key in named if isinstance(key, str)) if isinstance(named, dict) else frozenset()
    upstream = _check_upstreams(tasks, ids, findings)
    _check_references(raw, tasks, upstream, ids, findings)
    if executors is not None:
        _check_executors(raw, tasks, executors, findings)


def _check_kind(task: dict[str, Any], at: str, findings: Findings) -> None:
    given = [kind for kind in KINDS if task.get(kind) is not None]
    later = [kind for kind in LATER_KINDS if kind in task]
    if not given and not later:
        findings.add(at, "no_kind", "The task does nothing.", f"Give it one of {', '.join(KINDS)}.")
    elif len(given) > 1:
        findings.add(
            at, "several_kinds", f"The task has {' and '.join(given)}; a task is one of them.", "Make it several tasks."
        )
    command, shell = task.get("command"), task.get("shell") is True
    if isinstance(command, str) and not shell:
        hint = 'Write a list, such as ["echo", "hello"], or add "shell": true.'
        findings.add(
            f"{at}/command",
            "shell_not_asked",
            "A command of one text is a line for the shell, and the task does not say so.",
            hint,
        )
    elif isinstance(command, list | tuple) and shell:
        findings.add(
            f"{at}/command",
            "shell_takes_line",
            "With shell: true the command is one text.",
            "Write one line, or leave shell out.",
        )
    elif shell and command is None:
        findings.add(
            f"{at}/shell",
            "shell_without_command",
            "There is no command for the shell.",
            "Leave shell out, or add a command.",
        )
    if isinstance(command, list | tuple) and command and command[0] == "":
        findings.add(
            f"{at}/command/0", "empty", "The program has no name.", 'Name it first, such as ["python", "extract.py"].'
        )
    python = task.get("python")
    if isinstance(python, dict):
        forms = [form for form in ("call", "source") if python.get(form) is not None]
        if len(forms) != 1:
            what = "has both call and source" if forms else "has neither call nor source"
            findings.add(
                f"{at}/python",
                "call_or_source",
                f"The Python task {what}.",
                'Give it one: "call": "module:function", or "source".',
            )
    if isinstance(http := task.get("http"), dict):
        _check_http(http, f"{at}/http", findings)


def _check_http(http: dict[str, Any], at: str, findings: Findings) -> None:
    if isinstance(url := http.get("url"), str) and (wrong := urls.why_refused(url)):
        findings.add(f"{at}/url", "url_not_allowed", *wrong)
    if http.get("json") is not None and http.get("body") is not None:
        findings.add(at, "json_and_body", "The request has both json and body.", "Send one of them.")
    seen: set[str] = set()
    headers = http.get("headers")
    for name in headers if isinstance(headers, dict) else ():
        folded = str(name).lower()
        if folded in OUR_HEADERS:
            message = f"The header {shown(str(name))} is written by who makes the request."
            findings.add(f"{at}/headers/{escape(str(name))}", "reserved_header", message, "Leave it out.")
        if folded in seen:
            message = f"The header {shown(str(name))} is there twice; upper and lower case are the same."
            findings.add(f"{at}/headers/{escape(str(name))}", "duplicate", message, "Name it once.")
        seen.add(folded)


def _check_upstreams(tasks: Tasks, ids: Collection[str], findings: Findings) -> dict[str, list[str]]:
    """Check ``depends_on`` of every task; return the edges that make sense."""
    upstream: dict[str, list[str]] = {}
    edges = 0
    for task_id, task in tasks.items():
        given = task.get("depends_on")
        kept: dict[str, None] = {}
        for no, other in enumerate(given if isinstance(given, list | tuple) else ()):
            at = f"/tasks/{escape(task_id)}/depends_on/{no}"
            edges += 1
            if not isinstance(other, str):
                continue
            if other == task_id:
                findings.add(at, "self_dependency", f"{shown(task_id)} depends on itself.", "Leave it out.")
            elif other not in ids:
                hint = findings.meant(other, ids, "Add the task, or leave this out.")
                findings.add(at, "unknown_upstream", f"There is no task {shown(other)}.", hint)
            elif other in kept:
                findings.add(at, "duplicate_upstream", f"{shown(other)} is there twice.", "Name it once.")
            else:
                kept[other] = None
        upstream[task_id] = list(kept)
    if edges > MAX_EDGES:
        hint = "Put an `empty` task between many and many: n + m edges instead of n x m."
        findings.add(
            "/tasks", "too_many_edges", f"There are {edges:,} dependencies; at most {MAX_EDGES:,} are taken.", hint
        )
    for ring in graph.cycles(upstream):
        way = (
            [*ring, ring[0]]
            if len(ring) <= _LONGEST_RING
            else [*ring[:_LONGEST_RING], f"({len(ring) - _LONGEST_RING} more)", ring[0]]
        )
        message = f"The tasks wait for each other in a circle: {' -> '.join(way)}."
        findings.add(f"/tasks/{escape(ring[0])}/depends_on", "cycle", message, "Take one of these dependencies out.")
    return upstream


def _check_references(
    raw: Mapping[str, Any], tasks: Tasks, upstream: Mapping[str, list[str]], ids: Collection[str], findings: Findings
) -> None:
    declared = params.declared(raw.get("params"))
    defaults = raw.get("defaults")
    if isinstance(defaults, dict):
        for reference in _scanned(defaults.get("env"), "/defaults/env", findings):
            if reference.task_id is None:
                _check_param(reference, declared, findings)
            else:
                message = f"{reference.text} stands in defaults; no task is upstream of every task."
                findings.add(
                    reference.pointer,
                    "reference_not_allowed",
                    message,
                    "Put it into the env of the tasks that need it.",
                )
    wanted: dict[str, dict[str, Reference]] = {}
    for task_id, task in tasks.items():
        at = f"/tasks/{escape(task_id)}"
        _check_bare_texts(task, at, findings)
        for reference in _task_references(task, at, findings):
            other = reference.task_id
            if other is None:
                _check_param(reference, declared, findings)
            elif other == task_id:
                message = f"{reference.text} is the output of this very task."
                findings.add(reference.pointer, "reference_to_itself", message, "Name an upstream task.")
            elif other not in ids:
                hint = findings.meant(other, ids, "Name an upstream task.")
                findings.add(
                    reference.pointer, "unknown_reference", f"{reference.text}: there is no task {shown(other)}.", hint
                )
            else:
                wanted.setdefault(task_id, {}).setdefault(other, reference)
    for task_id, other in graph.not_before(upstream, wanted):
        reference = wanted[task_id][other]
        message = f"{reference.text}: {shown(other)} is not upstream of {shown(task_id)}, so it may not have run."
        findings.add(reference.pointer, "reference_not_upstream", message, f"Add {other!r} to depends_on.")


def _task_references(task: dict[str, Any], at: str, findings: Findings) -> list[Reference]:
    found = _scanned(task.get("env"), f"{at}/env", findings)
    command = task.get("command")
    if isinstance(command, list | tuple):
        found += [
            one for no, word in enumerate(command) if no for one in _scanned(word, f"{at}/command/{no}", findings)
        ]
    if isinstance(python := task.get("python"), dict):
        for name in ("args", "kwargs"):
            found += _scanned(python.get(name), f"{at}/python/{name}", findings)
    if isinstance(http := task.get("http"), dict):
        for name in ("url", "headers", "query", "json", "body"):
            found += _scanned(http.get(name), f"{at}/http/{name}", findings)
    return found


def _scanned(value: Any, at: str, findings: Findings) -> list[Reference]:
    found = scan(value, at)
    findings.extend(found.problems)
    return list(found.references)


def _check_bare_texts(task: dict[str, Any], at: str, findings: Findings) -> None:
    """Refuse references where they would be a way to change the program itself."""
    command, python = task.get("command"), task.get("python")
    if isinstance(command, str) and (found := _OURS.search(command)):
        _refuse(f"{at}/command", f"A shell line holds no reference, and {found.group()}... is one.", findings)
    if isinstance(python, dict) and isinstance(source := python.get("source"), str) and (found := _OURS.search(source)):
        _refuse(f"{at}/python/source", f"Python source holds no reference, and {found.group()}... is one.", findings)
    if isinstance(command, list | tuple) and command and isinstance(command[0], str):
        try:
            if any(isinstance(part, Reference) for part in parse(command[0])):
                _refuse(f"{at}/command/0", "The program itself cannot be a reference.", findings)
        except Malformed as wrong:
            findings.add(f"{at}/command/0", "bad_reference", wrong.message, wrong.hint)


def _refuse(at: str, message: str, findings: Findings) -> None:
    findings.add(at, "reference_not_allowed", message, _BY_ENV)


def _check_param(reference: Reference, declared: Collection[str] | None, findings: Findings) -> None:
    if reference.root != "params" or declared is None or not reference.path or reference.path[0] in declared:
        return
    name = str(reference.path[0])
    hint = findings.meant(
        name, declared, f'Declare it: "params": {{"type": "object", "properties": {{"{name}": {{}}}}}}.'
    )
    findings.add(
        reference.pointer, "unknown_param", f"{reference.text}: the DAG declares no param {shown(name)}.", hint
    )


def _check_executors(raw: Mapping[str, Any], tasks: Tasks, executors: Collection[str], findings: Findings) -> None:
    places: list[tuple[str, Any]] = [("", raw), ("/defaults", raw.get("defaults"))]
    places += [(f"/tasks/{escape(task_id)}", task) for task_id, task in tasks.items()]
    for at, holder in places:
        name = holder.get("executor") if isinstance(holder, dict) else None
        if isinstance(name, str) and name not in executors:
            listed = f"Configured are: {', '.join(sorted(executors))}."
            hint = findings.meant(name, executors, listed)
            findings.add(
                f"{at}/executor",
                "unknown_executor",
                f"There is no executor {shown(name)} here.",
                hint if hint == listed else f"{hint} {listed}",
            )
