"""A DAG version, compiled: defaults applied, tasks numbered, edges as numbers.  What commands and decisions work with.

A plan is a pure function of the document's *content*: tasks are numbered stage by stage (an upstream always has a
smaller number), inside a stage by their id, whatever the order in which the document names them.  Two documents with
the same content hash have the same plan, so a plan may be remembered by that hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dag import graph, references
from dag.references import Scope, resolve, resolve_text
from dag.retry import RetryPolicy
from dag.urls import resolve_url

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from dag.fields import LostContact
    from dag.spec import DagSpec, TaskSpec
    from dag.trigger_rules import TriggerRule

Kind = Literal["command", "python", "http", "empty"]


@dataclass(frozen=True, slots=True)
class PlanTask:
    """One task of a plan."""

    no: int
    task_id: str
    kind: Kind
    #: Numbers of the direct upstream and downstream tasks, ascending.
    upstream: tuple[int, ...]
    downstream: tuple[int, ...]
    trigger_rule: TriggerRule
    #: Its failure does not fail the run.
    allow_failure: bool
    #: How many failures of the user's code are tried again.
    retries: int
    retry: RetryPolicy
    #: After that long an attempt is stopped and counts as failed; None is never.
    timeout: timedelta | None
    #: Between asking an attempt to stop and killing it.
    kill_grace: timedelta
    #: None is the first of the configured ones.
    executor: str | None
    #: Which workers may take it, where the executor has queues.
    queue: str
    #: What a remote worker does with it when it lost the service for longer than its lease.
    on_lost_contact: LostContact
    priority_weight: int
    #: May hold references; :func:`resolved` puts them in.
    env: Mapping[str, str]
    #: Relative to the code folder; None is the attempt's own work directory.
    cwd: str | None
    #: The kind's own part, references inside: ``{"argv": [...]}``, ``{"shell": "..."}``,
    #: ``{"call", "args", "kwargs"}``, ``{"source", "args", "kwargs"}`` (both with ``interpreter`` where it
    #: is not the usual one), ``{"http": {"method", "url", "headers", "query"}}`` with ``json`` or ``body``, or ``{}``.
    body: Mapping[str, Any]
    #: Numbers of the tasks whose outputs its references name; all of them are (transitively) upstream.
    needs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of a DAG, ready to run."""

    dag_id: str
    #: By number.
    tasks: tuple[PlanTask, ...]
    #: By task id.
    numbers: Mapping[str, int]
    #: Tasks without upstreams.
    roots: tuple[int, ...]
    #: None is unlimited.
    max_active_runs: int | None
    max_active_tasks: int | None
    run_timeout: timedelta | None
    #: The first failure that counts cancels the rest of the run.
    fail_fast: bool
    #: A JSON Schema, or None: no params are taken.
    params: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Resolved:
    """What one attempt really gets."""

    body: dict[str, Any]
    env: dict[str, str]


def compile_plan(spec: DagSpec) -> Plan:
    """Return the plan of *spec*; linear in tasks and edges."""
    upstream: dict[str, tuple[str, ...]] = {task_id: task.depends_on for task_id, task in spec.tasks.items()}
    names = [task_id for stage in graph.stages(upstream) for task_id in stage]
    numbers = {task_id: no for no, task_id in enumerate(names)}
    downstream: list[list[int]] = [[] for _ in names]
    for no, task_id in enumerate(names):
        for name in upstream[task_id]:
            downstream[numbers[name]].append(no)
    tasks = tuple(_compile(spec, task_id, numbers, tuple(downstream[no])) for no, task_id in enumerate(names))
    return Plan(
        dag_id=spec.dag_id,
        tasks=tasks,
        numbers=numbers,
        roots=tuple(task.no for task in tasks if not task.upstream),
        max_active_runs=spec.max_active_runs,
        max_active_tasks=spec.max_active_tasks,
        run_timeout=spec.run_timeout,
        fail_fast=spec.fail_fast,
        params=spec.params,
    )


def resolved(task: PlanTask, scope: Scope) -> Resolved:
    """Return the body and the environment of *task* with their references replaced.

    Every element of argv and every variable is text then; ``args``, ``kwargs`` and the ``json`` of a request keep their
    JSON types.  Raises :exc:`~dag.references.Unresolved`.
    """
    body = dict(task.body)
    if "argv" in body:
        body["argv"] = [resolve_text(word, scope) for word in body["argv"]]
    for name in ("args", "kwargs"):
        if name in body:
            body[name] = resolve(body[name], scope)
    if "http" in body:
        body["http"] = _request(body["http"], scope)
    return Resolved(body, {name: resolve_text(value, scope) for name, value in task.env.items()})


def _compile(spec: DagSpec, task_id: str, numbers: Mapping[str, int], downstream: tuple[int, ...]) -> PlanTask:
    task = spec.with_defaults(task_id)
    kind, body = _body(task)
    env = task.env
    parts = (body.get("argv"), body.get("args"), body.get("kwargs"), body.get("http"), env)
    named = {reference.task_id for part in parts if part for reference in references.find(part)} - {None}
    return PlanTask(
        no=numbers[task_id],
        task_id=task_id,
        kind=kind,
        upstream=tuple(sorted(numbers[name] for name in task.depends_on)),
        downstream=downstream,
        trigger_rule=task.trigger_rule,
        allow_failure=task.allow_failure,
        retries=task.retries,
        retry=RetryPolicy(task.retry_delay, task.retry_backoff, task.max_retry_delay, float(task.retry_jitter)),
        timeout=task.execution_timeout,
        kill_grace=task.kill_grace,
        executor=task.executor,
        queue=task.queue,
        on_lost_contact=task.on_lost_contact,
        priority_weight=task.priority_weight,
        env=env,
        cwd=task.cwd,
        body=body,
        needs=tuple(sorted(numbers[name] for name in named if name is not None)),
    )


def _body(task: TaskSpec) -> tuple[Kind, dict[str, Any]]:
    if task.command is not None:
        return "command", {"shell": task.command} if isinstance(task.command, str) else {"argv": list(task.command)}
    if task.python is not None:
        python = task.python
        form = {"call": python.call} if python.call is not None else {"source": python.source}
        other = {} if python.interpreter is None else {"interpreter": python.interpreter}
        return "python", {**form, **other, "args": list(python.args), "kwargs": python.kwargs}
    if task.http is not None:
        http = task.http
        given = {"json": http.json_, "body": http.body}
        sent = {name: value for name, value in given.items() if value is not None}
        return "http", {
            "http": {"method": http.method, "url": http.url, "headers": http.headers, "query": http.query, **sent}
        }
    return "empty", {}


def _request(http: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    request = dict(http)
    request["url"] = resolve_url(http["url"], scope)
    for name in ("headers", "query"):
        request[name] = {key: resolve_text(value, scope) for key, value in http[name].items()}
    if "json" in http:
        request["json"] = resolve(http["json"], scope)
    if "body" in http:
        request["body"] = resolve_text(http["body"], scope)
    return request
