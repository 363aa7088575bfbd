"""The DAG document as values: frozen, validated, the same from HTTP, files and the Python builder.

The descriptions and examples here are the published JSON Schema (:func:`json_schema`) and so the user's documentation.
It accepts exactly what this release executes; :data:`dag.explain.LATER` names what is known and still refused.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Discriminator, Field, Tag, ValidationError

from dag import checks, document, explain, fields
from dag.errors import DocumentInvalid
from dag.fields import (
    Cwd,
    Duration,
    EnvName,
    EnvValue,
    Flag,
    Id,
    Int32,
    Jitter,
    Label,
    Line,
    LostContact,
    PositiveDuration,
    PositiveInt32,
    Queue,
    TaskName,
)
from dag.findings import Findings
from dag.ids import TaskId
from dag.kinds import Empty, HttpSpec, Model, PythonSpec
from dag.trigger_rules import TriggerRule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_TASKS: Final = 10_000


class TaskSettings(Model):
    """How a task runs: what a task may say itself, and ``defaults`` for all tasks."""

    trigger_rule: Annotated[
        TriggerRule,
        Field(
            description="What the upstream tasks must have come to before this one runs. "
            "A task without upstreams always runs.",
            examples=["all_success", "all_done", "none_failed_min_one_success"],
        ),
    ] = TriggerRule.ALL_SUCCESS
    allow_failure: Annotated[
        Flag,
        Field(
            description="A failure of this task does not fail the run. Downstream tasks still see it as failed.",
            examples=[True],
        ),
    ] = False
    retries: Annotated[
        fields.Retries,
        Field(
            description="How many more times it is tried when it fails. Losses of infrastructure are not counted.",
            examples=[2],
        ),
    ] = 0
    retry_delay: Annotated[
        Duration, Field(description="How long to wait before the second try.", examples=["PT30S"])
    ] = timedelta(seconds=30)
    retry_backoff: Annotated[
        Flag, Field(description="Wait twice as long before every further try.", examples=[True])
    ] = False
    max_retry_delay: Annotated[
        PositiveDuration | None,
        Field(
            description="The longest wait between two tries. Without it a growing wait stops at one day.",
            examples=["PT10M"],
        ),
    ] = None
    retry_jitter: Annotated[
        Jitter,
        Field(
            description="The part of each wait that is left to chance, from 0 to 1, so that many tasks do not come "
            "back in the same moment: at 0.5 it is between half of the wait and all of it. `true` is 0.5.",
            examples=[0.5],
        ),
    ] = 0.0
    execution_timeout: Annotated[
        PositiveDuration | None,
        Field(
            description="A try that takes longer is stopped and counts as failed. null: no limit.", examples=["PT1H"]
        ),
    ] = None
    kill_grace: Annotated[
        Duration,
        Field(
            description="How long a task that is asked to stop (SIGTERM) may take before it is killed (SIGKILL); "
            "at most PT1H.",
            examples=["PT10S"],
        ),
        fields.at_most(timedelta(hours=1)),
    ] = timedelta(seconds=10)
    priority_weight: Annotated[
        Int32, Field(description="When slots are short, the greater goes first. May be negative.", examples=[10])
    ] = 0
    executor: Annotated[
        Id | None,
        Field(
            description="The executor that runs it: one of `RUNYARD_EXECUTORS`. null: the first of them.",
            examples=["local"],
        ),
    ] = None
    queue: Annotated[
        Queue,
        Field(
            description="Which workers may take it: those that serve this queue. Only executors that hand tasks to "
            "workers have queues; the others take no notice of it.",
            examples=["gpu"],
        ),
    ] = "default"
    on_lost_contact: Annotated[
        LostContact,
        Field(
            description="What a worker on another machine does with this task when it has not reached the service for "
            "longer than its lease. `kill`: it kills the task, so that the next try never runs beside this one. "
            "`continue`: the task goes on; another try may run beside it, and its end may come too late and be "
            "refused. The others take no notice of it.",
            examples=["continue"],
        ),
    ] = "kill"
    env: Annotated[
        dict[EnvName, EnvValue],
        Field(
            description="Environment variables. Values may hold references. Names that begin with RUNYARD_ are taken. "
            "A task's own variables are added to those of `defaults` and win over them.",
            examples=[{"DAY": "${params.day}"}],
        ),
    ] = Field(default_factory=dict)
    cwd: Annotated[
        Cwd | None,
        Field(
            description="The working folder, relative to the code folder (`RUNYARD_CODE_DIR`). "
            "null: a private folder for each try.",
            examples=["reports"],
        ),
    ] = None


class Defaults(TaskSettings):
    """Settings for every task that does not say otherwise."""


Command = Annotated[
    Annotated[fields.Argv, Tag("<argv>")] | Annotated[Line, Tag("<line>")],
    Discriminator(fields.command_form, custom_error_type="command_type", custom_error_message="command"),
]


class TaskSpec(TaskSettings):
    """One task: exactly one of `command`, `python`, `http` and `empty`, and how it runs."""

    description: Annotated[
        fields.Prose | None,
        Field(description="What it is for, in your own words.", examples=["Loads the orders of one day."]),
    ] = None
    depends_on: Annotated[
        tuple[TaskName, ...], Field(description="The ids of the direct upstream tasks.", examples=[["extract"]])
    ] = ()
    command: Annotated[
        Command | None,
        Field(
            description="A program and its arguments, as a list; no shell is involved. With `shell: true`, one line of "
            "text for `/bin/sh -c`. Arguments may hold references; the program itself and a shell line may "
            "not: pass values by `env`. JSON that the program writes to the file named by the variable RUNYARD_OUTPUT "
            "is the task's output.",
            examples=[["python", "extract.py", "--day", "${params.day}"]],
        ),
    ] = None
    shell: Annotated[Flag, Field(description="`command` is one line for the shell.", examples=[True])] = False
    python: Annotated[
        PythonSpec | None, Field(description="A Python function; what it returns (JSON) is the task's output.")
    ] = None
    http: Annotated[
        HttpSpec | None,
        Field(
            description="A request over HTTP. Its output is `{status, headers, body}`, the body parsed where it is "
            "JSON. An answer other than 2xx fails the task; redirects are not followed. Without an `execution_timeout` "
            "it may take five minutes.",
            examples=[{"method": "GET", "url": "https://api.example.com/orders"}],
        ),
    ] = None
    empty: Annotated[
        Empty | None,
        Field(description="Does nothing: a place where branches meet. `{}` or `true`.", examples=[{}]),
    ] = None


class DagSpec(Model):
    """A DAG: tasks, what depends on what, and how runs behave."""

    dag_id: Annotated[Id, Field(description="Its name, unique in the installation.", examples=["nightly_orders"])]
    description: Annotated[
        fields.Prose | None,
        Field(description="What it is for, in your own words.", examples=["Orders of the day into the warehouse."]),
    ] = None
    tags: Annotated[
        tuple[Label, ...],
        fields.unique,
        Field(max_length=100, description="Words to find it by.", examples=[["orders", "nightly"]]),
    ] = ()
    owners: Annotated[
        tuple[Label, ...], fields.unique, Field(max_length=100, description="Who to ask.", examples=[["data-team"]])
    ] = ()
    schedule: Annotated[
        None, Field(description="Schedules are not supported yet; only null is taken.", examples=[None])
    ] = None
    params: Annotated[
        dict[str, Any] | None,
        Field(
            description="A JSON Schema (2020-12) of type object for what a trigger may pass in. Defaults are filled "
            "in; properties that are not declared are refused unless `additionalProperties` says otherwise. "
            "null: no params are taken.",
            examples=[
                {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}, "required": ["day"]}
            ],
        ),
    ] = None
    defaults: Annotated[
        Defaults,
        Field(
            description="Settings of every task that does not say otherwise itself.",
            examples=[{"retries": 2, "executor": "local"}],
        ),
    ] = Field(default_factory=Defaults)
    max_active_runs: Annotated[
        PositiveInt32 | None,
        Field(description="How many runs may be active at once; others wait. null: no limit.", examples=[1]),
    ] = None
    max_active_tasks: Annotated[
        PositiveInt32 | None,
        Field(
            description="How many tasks of this DAG may be active at once, over all its runs. null: no limit.",
            examples=[16],
        ),
    ] = None
    run_timeout: Annotated[
        PositiveDuration | None,
        Field(description="A run that takes longer is stopped and fails. null: no limit.", examples=["PT6H"]),
    ] = None
    fail_fast: Annotated[
        Flag, Field(description="The first failure that counts cancels what is left of the run.", examples=[True])
    ] = False
    executor: Annotated[
        Id | None,
        Field(
            description="The executor of tasks that name none, nor `defaults`. null: the first of `RUNYARD_EXECUTORS`.",
            examples=["local"],
        ),
    ] = None
    tasks: Annotated[
        dict[TaskName, TaskSpec],
        Field(
            min_length=1,
            max_length=MAX_TASKS,
            description="The tasks by their ids. Ids are letters, digits, _ and -, and do not begin with a digit or -.",
            examples=[{"hello": {"command": ["echo", "hello"]}}],
        ),
    ]

    def with_defaults(self, task_id: str) -> TaskSpec:
        """Return a task with the settings of ``defaults``, and the DAG's executor, where it has none of its own."""
        task = self.tasks[TaskId(task_id)]
        inherited = self.defaults.model_fields_set - task.model_fields_set
        changes = {name: getattr(self.defaults, name) for name in inherited}
        changes["env"] = {**self.defaults.env, **task.env}
        if "executor" not in inherited | task.model_fields_set:
            changes["executor"] = self.executor
        return task.model_copy(update=changes)


#: The fields that exist, by where they stand.
_FIELDS: Final = {
    "dag": tuple(DagSpec.model_fields),
    "defaults": tuple(Defaults.model_fields),
    "task": tuple(TaskSpec.model_fields),
    "python": tuple(PythonSpec.model_fields),
    "http": tuple(field.alias or name for name, field in HttpSpec.model_fields.items()),
    "empty": (),
}


def load(raw: Mapping[str, Any], *, dag_id: str | None = None, executors: Collection[str] | None = None) -> DagSpec:
    """Return the DAG that *raw* describes, or raise :exc:`~dag.errors.DocumentInvalid` with EVERY problem.

    *dag_id* is the name it was addressed by: the document may leave its own out, and must not differ.  *executors* are
    the configured ones; without them the names are not checked.
    """
    findings = Findings()
    if not document.sweep(dict(raw), findings):
        findings.raise_if_any(DocumentInvalid)
    named = dict(raw) if dag_id is None or "dag_id" in raw else {**raw, "dag_id": dag_id}
    spec: DagSpec | None = None
    try:
        spec = DagSpec.model_validate(named)
    except ValidationError as wrong:
        explain.explain(wrong, _FIELDS, findings)
    checks.check(named, findings, dag_id=dag_id, executors=executors)
    findings.raise_if_any(DocumentInvalid)
    if spec is None:  # pragma: no cover  # explain() tells at least one problem of a ValidationError
        raise AssertionError
    return spec


def stored(raw: Mapping[str, Any], *, dag_id: str) -> DagSpec:
    """Return the DAG of a document that :func:`load` took before it was stored; only the types are checked again.

    A later release may have stricter rules: what was accepted stays accepted.
    """
    try:
        return DagSpec.model_validate({**raw, "dag_id": dag_id})
    except ValidationError as wrong:
        findings = Findings()
        explain.explain(wrong, _FIELDS, findings)
        raise DocumentInvalid(findings.problems) from None


def json_schema() -> dict[str, Any]:
    """Return the published JSON Schema (2020-12) of the document."""
    schema = DagSpec.model_json_schema()
    definitions = schema["$defs"]
    # pydantic says which keys fit a pattern, and leaves open that no other key may be there.
    holders = [(definitions["Defaults"], "env"), (definitions["TaskSpec"], "env"), (definitions["HttpSpec"], "headers")]
    for holder, name in [(schema, "tasks"), *holders]:
        holder["properties"][name]["additionalProperties"] = False
    definitions["PythonSpec"]["oneOf"] = [_given("call"), _given("source")]
    definitions["HttpSpec"]["not"] = {"allOf": [_given("json"), _given("body")]}
    definitions["TaskSpec"] |= {
        "oneOf": [_given(kind) for kind in checks.KINDS],
        "if": {"properties": {"shell": {"const": True}}, "required": ["shell"]},
        "then": {"properties": {"command": {"type": "string"}}, "required": ["command"]},
        "else": {"properties": {"command": {"type": ["array", "null"]}}},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Runyard DAG"}


def _given(name: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
