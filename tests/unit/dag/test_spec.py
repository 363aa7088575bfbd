"""The document's rules: what is accepted, what is refused, and with which words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dag.document import read
from dag.findings import MOST
from dag.ids import TaskId
from dag.spec import DagSpec, TaskSpec, load
from dag.trigger_rules import TriggerRule
from tests.unit.dag.documents import doc, one, places, problems, task


def only(spec: DagSpec) -> TaskSpec:
    return spec.tasks[TaskId("a")]


def test_the_smallest_document_has_the_published_defaults() -> None:
    spec = load(doc())
    assert (spec.tags, spec.params, spec.max_active_runs, spec.max_active_tasks) == ((), None, None, None)
    assert (spec.run_timeout, spec.fail_fast, spec.executor, spec.schedule) == (None, False, None, None)
    assert only(spec) == TaskSpec(
        command=("true",),
        shell=False,
        depends_on=(),
        trigger_rule=TriggerRule.ALL_SUCCESS,
        allow_failure=False,
        retries=0,
        retry_delay=timedelta(seconds=30),
        retry_backoff=False,
        max_retry_delay=None,
        retry_jitter=0.0,
        execution_timeout=None,
        kill_grace=timedelta(seconds=10),
        priority_weight=0,
        executor=None,
        queue="default",
        on_lost_contact="kill",
        env={},
        cwd=None,
    )


def test_a_document_with_everything_is_taken_whole() -> None:
    spec = load(
        {
            "dag_id": "nightly.orders:v1+x~y-z",
            "description": "Orders of the day.\nEvery night.",
            "tags": ["orders", "nächtlich", "🚀"],
            "owners": ["data team"],
            "schedule": None,
            "params": {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}},
            "defaults": {"retries": 2, "executor": "local", "env": {"A": "1"}, "trigger_rule": "all_done"},
            "max_active_runs": 1,
            "max_active_tasks": 2.0,
            "run_timeout": "PT6H",
            "fail_fast": True,
            "executor": "sequential",
            "tasks": {
                "_extract": {
                    "command": ["python", "x.py", "${params.day}", ""],
                    "cwd": "a/b..c/...",
                    "env": {"_X9": ""},
                },
                "line-1": {"command": "echo ${HOME} $X | wc -l", "shell": True, "depends_on": ["_extract"]},
                "load": {
                    "description": "Loads.",
                    "python": {
                        "call": "warehouse.load:Loader.run",
                        "args": [1, None],
                        "kwargs": {"rows": "${outputs._extract.rows}"},
                    },
                    "depends_on": ["_extract"],
                    "trigger_rule": "none_failed",
                    "allow_failure": True,
                    "retries": 0,
                    "retry_delay": "PT0S",
                    "retry_backoff": True,
                    "max_retry_delay": "PT1M",
                    "retry_jitter": 0.25,
                    "execution_timeout": "PT0.2S",
                    "kill_grace": "PT0S",
                    "priority_weight": -(2**31),
                    "queue": "_gpu.large-1",
                    "on_lost_contact": "continue",
                },
                "inline": {
                    "python": {"source": "def main(n):\n    return f'{n}' + '${x}'\n", "args": ["${try_number}"]}
                },
                "join": {"empty": {}, "depends_on": ["load", "inline", "line-1"]},
                "end": {"empty": True, "depends_on": ["join"]},
            },
        },
        executors=["sequential", "local"],
    )
    assert (spec.max_active_tasks, spec.run_timeout) == (2, timedelta(hours=6))
    assert spec.tasks[TaskId("load")].retry_jitter == 0.25
    assert spec.tasks[TaskId("end")].empty is not None


@pytest.mark.parametrize(
    "kind", [{"command": ["true"], "python": None, "empty": None}, {"command": None, "empty": True}]
)
def test_null_is_a_kind_that_is_not_there(kind: dict[str, Any]) -> None:
    load(doc({"a": kind}))


@pytest.mark.parametrize(("given", "meant"), [(True, 0.5), (False, 0.0), (0, 0.0), (1, 1.0), (0.2, 0.2)])
def test_jitter_is_a_part_or_yes_or_no(given: Any, meant: float) -> None:
    assert only(load(task(retry_jitter=given))).retry_jitter == meant


@pytest.mark.parametrize("rule", TriggerRule, ids=str)
def test_every_trigger_rule_is_taken(rule: TriggerRule) -> None:
    assert only(load(task(trigger_rule=str(rule)))).trigger_rule is rule


@pytest.mark.parametrize(
    "line",
    [
        "echo ${HOME}",
        "echo ${x:-params.y}",
        "echo $${params.x}",
        "echo ${params_x}",
        "echo ${run}",
        "a=(1); echo ${a[0]}",
    ],
)
def test_the_shell_keeps_its_own_variables(line: str) -> None:
    load(doc({"a": {"command": line, "shell": True}}))


DESIGNED = """
dag_id: nightly_orders
schedule: {cron: "30 2 * * *", timezone: Europe/Berlin}
params: {type: object, properties: {day: {type: string, format: date}}}
defaults: {retries: 2, retry_delay: PT30S, executor: local}
tasks:
  extract:
    command: [python, extract.py, --day, "${params.day}"]
  load:
    python: {call: "warehouse.load:run", kwargs: {rows: "${outputs.extract.rows}"}}
    depends_on: [extract]
  notify:
    http: {method: POST, url: "https://hooks.example.com/x", json: {loaded: "${outputs.load.count}"}}
    depends_on: [load]
    trigger_rule: all_done
"""


def test_of_the_designed_example_only_what_comes_later_is_refused() -> None:
    document = read(DESIGNED.encode(), media="yaml")
    assert places(document) == [("/schedule", "not_supported")]
    del document["schedule"]
    load(document, executors=["local"])


def test_the_name_may_come_from_the_address_alone() -> None:
    assert load({"tasks": {"a": {"empty": {}}}}, dag_id="named").dag_id == "named"


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(doc()).dag_id = "x"  # type: ignore[misc]  # that is the point


BAD_IDS = ["", "a/b", "a b", "ü", "a\n", "\x1b[0m", "a" * 251, "a%2f", "a\u200bb", "<x>"]


@pytest.mark.parametrize("bad", [*BAD_IDS, ".", ".."])
def test_dag_ids_are_refused(bad: str) -> None:
    found = one(doc() | {"dag_id": bad})
    assert (found.pointer, found.code) == ("/dag_id", "bad_id")
    assert not any(character in found.message for character in "\n\x1b\u200b")


@pytest.mark.parametrize("bad", [*BAD_IDS, ".", "..", "1a", "-a", "a.b", "a~b"])
def test_task_ids_are_refused(bad: str) -> None:
    pointer = "/tasks/" + bad.replace("~", "~0").replace("/", "~1")
    assert places(doc({bad: {"command": ["true"]}})) == [(pointer, "bad_id")]


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        pytest.param({"dag_id": 5}, "/dag_id", "wrong_type", id="an id that is a number"),
        pytest.param({"dag_id": None}, "/dag_id", "wrong_type", id="an id that is null"),
        pytest.param({"tasks": {}}, "/tasks", "empty", id="no tasks"),
        pytest.param({"tasks": []}, "/tasks", "wrong_type", id="tasks as a list"),
        pytest.param({"tasks": None}, "/tasks", "wrong_type", id="tasks null"),
        pytest.param({"tasks": {"a": None}}, "/tasks/a", "wrong_type", id="a task that is null"),
        pytest.param({"tags": "x"}, "/tags", "wrong_type", id="tags as a text"),
        pytest.param({"tags": [1]}, "/tags/0", "wrong_type", id="a tag that is a number"),
        pytest.param({"tags": [""]}, "/tags/0", "bad_label", id="an empty tag"),
        pytest.param({"tags": ["a\nb"]}, "/tags/0", "bad_label", id="a tag of two lines"),
        pytest.param({"tags": ["x" * 101]}, "/tags/0", "bad_label", id="a long tag"),
        pytest.param({"tags": ["x", "y", "x"]}, "/tags", "duplicate", id="a tag twice"),
        pytest.param({"owners": [str(no) for no in range(101)]}, "/owners", "too_many", id="too many owners"),
        pytest.param({"description": "x" * 10_001}, "/description", "too_long", id="a book as a description"),
        pytest.param({"max_active_runs": 0}, "/max_active_runs", "out_of_range", id="no run at all"),
        pytest.param({"max_active_runs": True}, "/max_active_runs", "wrong_type", id="a boolean as a number"),
        pytest.param({"max_active_tasks": 1.5}, "/max_active_tasks", "wrong_type", id="half a task"),
        pytest.param({"max_active_tasks": "5"}, "/max_active_tasks", "wrong_type", id="a number in quotes"),
        pytest.param({"max_active_tasks": 2**31}, "/max_active_tasks", "out_of_range", id="more than 32 bits"),
        pytest.param({"run_timeout": "PT0S"}, "/run_timeout", "bad_duration", id="no time to run"),
        pytest.param({"run_timeout": 60}, "/run_timeout", "bad_duration", id="seconds as a number"),
        pytest.param({"fail_fast": "yes"}, "/fail_fast", "wrong_type", id="yes is no boolean"),
        pytest.param({"fail_fast": 1}, "/fail_fast", "wrong_type", id="1 is no boolean"),
        pytest.param({"executor": "a/b"}, "/executor", "bad_id", id="an executor with a slash"),
        pytest.param({"defaults": []}, "/defaults", "wrong_type", id="defaults as a list"),
        pytest.param({"params": []}, "/params", "wrong_type", id="params as a list"),
        pytest.param({"schedule": "@daily"}, "/schedule", "not_supported", id="a schedule"),
    ],
)
def test_a_field_of_the_dag_is_refused(fields: dict[str, Any], pointer: str, code: str) -> None:
    assert places(doc() | fields) == [(pointer, code)]


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        pytest.param({"command": []}, "command", "empty", id="an empty command"),
        pytest.param({"command": [""]}, "command/0", "empty", id="a program without a name"),
        pytest.param({"command": ["x", 1]}, "command/1", "wrong_type", id="a number as an argument"),
        pytest.param({"command": ["x", None]}, "command/1", "wrong_type", id="null as an argument"),
        pytest.param({"command": {"x": 1}}, "command", "wrong_type", id="an object as a command"),
        pytest.param({"command": 5}, "command", "wrong_type", id="a number as a command"),
        pytest.param(
            {"command": ["x", "y" * 100_001]}, "command/1", "too_long", id="an argument too long for the system"
        ),
        pytest.param({"env": {"A\0": ""}}, "env/A\0", "nul_character", id="NUL in a name"),
        pytest.param({"command": ["x\0"]}, "command/0", "nul_character", id="NUL in an argument"),
        pytest.param({"command": ["\ud800"]}, "command/0", "lone_surrogate", id="half a character"),
        pytest.param({"shell": 1}, "shell", "wrong_type", id="shell is a boolean"),
        pytest.param({"command": "", "shell": True}, "command", "empty", id="an empty line"),
        pytest.param({"depends_on": "b"}, "depends_on", "wrong_type", id="depends_on as a text"),
        pytest.param({"depends_on": None}, "depends_on", "wrong_type", id="depends_on null"),
        pytest.param({"depends_on": [1]}, "depends_on/0", "wrong_type", id="a number as an upstream"),
        pytest.param({"trigger_rule": "all_ok"}, "trigger_rule", "unknown_value", id="a rule that is none"),
        pytest.param({"trigger_rule": 1}, "trigger_rule", "unknown_value", id="a number as a rule"),
        pytest.param({"allow_failure": None}, "allow_failure", "wrong_type", id="neither true nor false"),
        pytest.param({"retries": -1}, "retries", "out_of_range", id="less than no retry"),
        pytest.param({"retries": 1001}, "retries", "out_of_range", id="retries for ever"),
        pytest.param({"retries": None}, "retries", "wrong_type", id="retries null"),
        pytest.param({"retries": 2**64}, "retries", "number_out_of_range", id="retries beyond numbers"),
        pytest.param({"retry_delay": "30s"}, "retry_delay", "bad_duration", id="not ISO 8601"),
        pytest.param({"retry_delay": "-PT1S"}, "retry_delay", "bad_duration", id="a negative delay"),
        pytest.param({"retry_delay": None}, "retry_delay", "bad_duration", id="a delay null"),
        pytest.param({"retry_delay": "P1M"}, "retry_delay", "bad_duration", id="a month"),
        pytest.param({"max_retry_delay": "PT0S"}, "max_retry_delay", "bad_duration", id="a cap of nothing"),
        pytest.param({"retry_jitter": 1.1}, "retry_jitter", "bad_jitter", id="more than all of it"),
        pytest.param({"retry_jitter": "0.5"}, "retry_jitter", "bad_jitter", id="jitter in quotes"),
        pytest.param({"execution_timeout": "PT0S"}, "execution_timeout", "bad_duration", id="no time at all"),
        pytest.param({"execution_timeout": "P9999D"}, "execution_timeout", "bad_duration", id="27 years"),
        pytest.param({"kill_grace": "PT1H0.1S"}, "kill_grace", "bad_duration", id="a grace without end"),
        pytest.param({"priority_weight": 2**31}, "priority_weight", "out_of_range", id="above 32 bits"),
        pytest.param({"priority_weight": -(2**31) - 1}, "priority_weight", "out_of_range", id="below 32 bits"),
        pytest.param({"priority_weight": 0.5}, "priority_weight", "wrong_type", id="a fraction as a weight"),
        pytest.param({"queue": ""}, "queue", "bad_queue", id="a queue without a name"),
        pytest.param({"queue": None}, "queue", "wrong_type", id="a queue null"),
        pytest.param({"queue": "1a"}, "queue", "bad_queue", id="a queue that begins with a digit"),
        pytest.param({"queue": "a b"}, "queue", "bad_queue", id="a queue of two words"),
        pytest.param({"queue": "a\n"}, "queue", "bad_queue", id="a queue of two lines"),
        pytest.param({"queue": "a" * 101}, "queue", "bad_queue", id="a long queue"),
        pytest.param({"queue": "default.DQ"}, "queue", "bad_queue", id="Dramatiq's queue for delays"),
        pytest.param({"queue": "default.XQ"}, "queue", "bad_queue", id="Dramatiq's queue for the dead"),
        pytest.param({"queue": "${params.x}"}, "queue", "bad_queue", id="a queue from a param"),
        pytest.param({"on_lost_contact": "ignore"}, "on_lost_contact", "unknown_value", id="neither kill nor continue"),
        pytest.param({"on_lost_contact": None}, "on_lost_contact", "unknown_value", id="on_lost_contact null"),
        pytest.param({"env": []}, "env", "wrong_type", id="env as a list"),
        pytest.param({"env": {"A": 1}}, "env/A", "wrong_type", id="a number as a variable"),
        pytest.param({"env": {"A": None}}, "env/A", "wrong_type", id="null as a variable"),
        pytest.param({"env": {"1A": ""}}, "env/1A", "bad_env_name", id="a name that begins with a digit"),
        pytest.param({"env": {"A=B": ""}}, "env/A=B", "bad_env_name", id="a name with ="),
        pytest.param({"env": {"": ""}}, "env/", "bad_env_name", id="a name of nothing"),
        pytest.param({"env": {"Ä": ""}}, "env/Ä", "bad_env_name", id="a name that is not ASCII"),
        pytest.param({"env": {"RUNYARD_OUTPUT": ""}}, "env/RUNYARD_OUTPUT", "reserved_env_name", id="a name of ours"),
        pytest.param({"env": {"A": "\0"}}, "env/A", "nul_character", id="NUL in a variable"),
        pytest.param({"cwd": "/etc"}, "cwd", "bad_cwd", id="an absolute folder"),
        pytest.param({"cwd": ".."}, "cwd", "bad_cwd", id="one up"),
        pytest.param({"cwd": "a/../../b"}, "cwd", "bad_cwd", id="down and up"),
        pytest.param({"cwd": ""}, "cwd", "empty", id="no folder"),
        pytest.param({"cwd": "x" * 1001}, "cwd", "too_long", id="a very long folder"),
        pytest.param({"cwd": "${params.x}"}, "cwd", "reference_not_allowed", id="a folder from a param"),
        pytest.param({"cwd": "a\0"}, "cwd", "nul_character", id="NUL in a folder"),
        pytest.param({"description": 5}, "description", "wrong_type", id="a number as a description"),
    ],
)
def test_a_field_of_a_task_is_refused(fields: dict[str, Any], pointer: str, code: str) -> None:
    assert places(task(**fields)) == [(f"/tasks/a/{pointer}", code)]


@pytest.mark.parametrize(
    ("python", "pointer", "code"),
    [
        ({}, "", "call_or_source"),
        ({"call": "m:f", "source": "def main(): ..."}, "", "call_or_source"),
        ({"call": "m"}, "/call", "bad_call"),
        ({"call": "m.f()"}, "/call", "bad_call"),
        ({"call": "m:f\n"}, "/call", "bad_call"),
        ({"call": "os:system;x"}, "/call", "bad_call"),
        ({"call": ".m:f"}, "/call", "bad_call"),
        ({"call": "${params.x}:f"}, "/call", "bad_call"),
        ({"call": 5}, "/call", "wrong_type"),
        ({"source": ""}, "/source", "empty"),
        ({"source": "x" * (256 * 1024 + 1)}, "/source", "too_long"),
        ({"source": "def main(): return '${params.x}'"}, "/source", "reference_not_allowed"),
        ({"call": "m:f", "args": {}}, "/args", "wrong_type"),
        ({"call": "m:f", "kwargs": []}, "/kwargs", "wrong_type"),
        ({"call": "m:f", "interpreter": ""}, "/interpreter", "bad_interpreter"),
        ({"call": "m:f", "interpreter": "bin/python"}, "/interpreter", "bad_interpreter"),
        ({"call": "m:f", "interpreter": "/"}, "/interpreter", "bad_interpreter"),
        ({"call": "m:f", "interpreter": "python3 -c"}, "/interpreter", "bad_interpreter"),
        ({"call": "m:f", "interpreter": "-c"}, "/interpreter", "bad_interpreter"),
        ({"call": "m:f", "interpreter": "/x\n"}, "/interpreter", "bad_interpreter"),
        ({"call": "m:f", "interpreter": "/" + "x" * 1000}, "/interpreter", "bad_interpreter"),
        ({"call": "m:f", "interpreter": "/opt/${params.x}"}, "/interpreter", "reference_not_allowed"),
        ({"call": "m:f", "interpreter": 3.12}, "/interpreter", "wrong_type"),
        ({"call": "m:f", "packages": ["x"]}, "/packages", "not_supported"),
        ({"call": "m:f", "kw": {}}, "/kw", "unknown_field"),
        ("m:f", "", "wrong_type"),
    ],
)
def test_a_python_task_is_refused(python: Any, pointer: str, code: str) -> None:
    assert places(doc({"a": {"python": python}})) == [(f"/tasks/a/python{pointer}", code)]


@pytest.mark.parametrize("name", [None, "python3.12", "pypy3.10", "/opt/my reports/bin/python", "C++_python-3.8"])
def test_an_interpreter_is_a_path_or_a_name(name: str | None) -> None:
    load(doc({"a": {"python": {"call": "m:f", "interpreter": name}}}))


REQUEST: dict[str, Any] = {"method": "POST", "url": "https://x.example/a"}


def test_a_request_with_everything_is_taken() -> None:
    http = {
        "method": "PATCH",
        "url": "http://${params.host}:8080/a/${params.id}?x=%20&y=${params.id}",
        "headers": {"Authorization": "Bearer ${params.id}", "X-~Empty": ""},
        "query": {"ä b": "${params.id}"},
        "json": {"rows": ["${params.id}", None, 1.5]},
    }
    found = only(load(doc({"a": {"http": http}}, params={"properties": {"host": {}, "id": {}}})))
    assert found.http is not None
    assert (found.http.json_, found.http.body) == (http["json"], None)
    load(doc({"a": {"http": {**REQUEST, "json": None, "body": ""}}}))


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"method": "get"}, "/method", "unknown_value"),
        ({"method": "CONNECT"}, "/method", "unknown_value"),
        ({"method": None}, "/method", "unknown_value"),
        ({"url": "x.example/a"}, "/url", "bad_url"),
        ({"url": "ftp://x.example/a"}, "/url", "bad_url"),
        ({"url": "file:///etc/passwd"}, "/url", "bad_url"),
        ({"url": ""}, "/url", "bad_url"),
        ({"url": 5}, "/url", "wrong_type"),
        ({"url": "https://x/" + "y" * 8000}, "/url", "too_long"),
        ({"url": "https://u:p@x.example/"}, "/url", "url_not_allowed"),
        ({"url": "https://${run.run_id}@x.example/"}, "/url", "url_not_allowed"),
        ({"url": "https://x.example/a b"}, "/url", "url_not_allowed"),
        ({"url": "https://x.example/\n"}, "/url", "url_not_allowed"),
        ({"url": "https://bücher.example/"}, "/url", "url_not_allowed"),
        ({"url": "https://x.example/#top"}, "/url", "url_not_allowed"),
        ({"url": "https://x.example/${"}, "/url", "bad_reference"),
        ({"headers": ["X: y"]}, "/headers", "wrong_type"),
        ({"headers": {"X": 1}}, "/headers/X", "wrong_type"),
        ({"headers": {"X Y": "1"}}, "/headers/X Y", "bad_header"),
        ({"headers": {"X:": "1"}}, "/headers/X:", "bad_header"),
        ({"headers": {"": "1"}}, "/headers/", "bad_header"),
        ({"headers": {"X\r\nY": "1"}}, "/headers/X\r\nY", "bad_header"),
        ({"headers": {"HOST": "1"}}, "/headers/HOST", "reserved_header"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "/headers/Transfer-Encoding", "reserved_header"),
        ({"headers": {"X": "1", "x": "2"}}, "/headers/x", "duplicate"),
        ({"query": "a=b"}, "/query", "wrong_type"),
        ({"query": {"a": 1}}, "/query/a", "wrong_type"),
        ({"query": {"${params.x}": "1"}}, "/query/${params.x}", "reference_not_allowed"),
        ({"json": 1, "body": "x"}, "", "json_and_body"),
        ({"json": 0, "body": ""}, "", "json_and_body"),
        ({"json": {"x": "${outputs.b}"}}, "/json/x", "unknown_reference"),
        ({"json": {"${params.x}": 1}}, "/json/${params.x}", "reference_not_allowed"),
        ({"body": {"x": 1}}, "/body", "wrong_type"),
        ({"body": "${outputs.a}"}, "/body", "reference_to_itself"),
        ({"data": "x"}, "/data", "unknown_field"),
    ],
)
def test_a_request_is_refused(change: dict[str, Any], pointer: str, code: str) -> None:
    assert places(doc({"a": {"http": {**REQUEST, **change}}})) == [(f"/tasks/a/http{pointer}", code)]


def test_a_request_says_at_least_what_and_where() -> None:
    wanted = [("/tasks/a/http/method", "required"), ("/tasks/a/http/url", "required")]
    assert places(doc({"a": {"http": {}}})) == wanted


def test_source_is_never_compiled_here() -> None:
    load(doc({"a": {"python": {"source": "this is no python ("}}}))


@pytest.mark.parametrize(
    ("given", "pointer", "code"),
    [
        ({}, "", "no_kind"),
        ({"command": None}, "", "no_kind"),
        ({"command": ["x"], "empty": {}}, "", "several_kinds"),
        ({"command": ["x"], "python": {"call": "m:f"}}, "", "several_kinds"),
        ({"command": "echo hello"}, "/command", "shell_not_asked"),
        ({"command": "echo hello", "shell": False}, "/command", "shell_not_asked"),
        ({"command": ["echo"], "shell": True}, "/command", "shell_takes_line"),
        ({"empty": {}, "shell": True}, "/shell", "shell_without_command"),
        ({"empty": False}, "/empty", "wrong_type"),
        ({"empty": {"x": 1}}, "/empty/x", "unknown_field"),
        ({"http": {"method": "GET", "url": "https://x/"}, "empty": {}}, "", "several_kinds"),
        ({"callback": {"url": "x"}}, "/callback", "not_supported"),
        ({"wait": "PT1H"}, "/wait", "not_supported"),
    ],
)
def test_a_task_is_exactly_one_kind(given: dict[str, Any], pointer: str, code: str) -> None:
    assert places(doc({"a": given})) == [(f"/tasks/a{pointer}", code)]


@pytest.mark.parametrize(
    "name",
    ["pool", "pool_slots", "resources", "executor_config", "when", "map_over", "image", "callback"],
)
def test_what_later_releases_execute_is_refused_as_not_supported(name: str) -> None:
    assert places(task(**{name: None})) == [(f"/tasks/a/{name}", "not_supported")]
    assert places(doc(defaults={name: 1})) == [(f"/defaults/{name}", "not_supported")]


@pytest.mark.parametrize("name", ["catchup", "start_date", "pool", "assets", "webhooks"])
def test_what_later_releases_know_of_a_dag_is_refused_as_not_supported(name: str) -> None:
    fields: dict[str, Any] = {name: 1}
    assert places(doc(**fields)) == [(f"/{name}", "not_supported")]


@pytest.mark.parametrize(
    ("document", "pointer", "hint"),
    [
        (doc(descripton="x"), "/descripton", "Did you mean 'description'?"),
        (doc(maxActiveRuns=1), "/maxActiveRuns", "Did you mean 'max_active_runs'?"),
        (doc(default_args={}), "/default_args", "Did you mean 'defaults'?"),
        (doc(retries=1), "/retries", "Put it into `defaults` or a task."),
        (doc(queue="gpu"), "/queue", "Put it into `defaults` or a task."),
        (doc(command=["x"]), "/command", "Put it into each task that needs it."),
        (doc(zzz=1), "/zzz", "Here are: dag_id, defaults, description,"),
        (doc(defaults={"depends_on": []}), "/defaults/depends_on", "Put it into each task that needs it."),
        (doc(defaults={"retris": 1}), "/defaults/retris", "Did you mean 'retries'?"),
        (task(tags=[]), "/tasks/a/tags", "Put it beside `tasks`."),
        (task(task_id="a"), "/tasks/a/task_id", "Leave task_id out."),
        (task(needs=[]), "/tasks/a/needs", "Did you mean 'depends_on'?"),
        (task(timeout="PT1S"), "/tasks/a/timeout", "Did you mean 'execution_timeout'?"),
        (task(**{"depends-on": []}), "/tasks/a/depends-on", "Did you mean 'depends_on'?"),
        (task(**{"a/b~c": 1}), "/tasks/a/a~1b~0c", "Here are: "),
        (task(**{"x" * 500: 1}), "/tasks/a/" + "x" * 500, "Here are: "),
    ],
)
def test_an_unknown_field_gets_a_hint_of_what_was_meant(document: dict[str, Any], pointer: str, hint: str) -> None:
    found = one(document)
    assert (found.pointer, found.code) == (pointer, "unknown_field")
    assert found.hint.startswith(hint)


def test_a_document_that_names_another_dag_than_its_address_is_refused() -> None:
    assert places(doc(), dag_id="other") == [("/dag_id", "id_mismatch")]


def test_a_document_without_a_name_is_refused() -> None:
    assert places({"tasks": {"a": {"empty": {}}}}) == [("/dag_id", "required")]


def test_executors_are_checked_where_they_are_known() -> None:
    document = doc({"a": {"empty": {}, "executor": "kubernetes"}}, executor="lokal", defaults={"executor": "local"})
    load(document)
    found = problems(document, executors=["sequential", "local"])
    assert [(problem.pointer, problem.code) for problem in found] == [
        ("/executor", "unknown_executor"),
        ("/tasks/a/executor", "unknown_executor"),
    ]
    assert found[0].hint == "Did you mean 'local'? Configured are: local, sequential."


def test_a_document_with_fifteen_mistakes_reports_all_fifteen() -> None:
    document = {
        "dag_id": "a b",
        "schedule": {"cron": "0 0 * * *"},
        "desc": "x",
        "params": {"properties": {"x": {"type": "strin"}}},
        "max_active_runs": 0,
        "tasks": {
            "a": {"command": ["x"], "depends_on": ["b"], "retries": -1},
            "b": {"command": ["x"], "depends_on": ["a", "nope"], "cwd": "/"},
            "c": {"command": "one line", "execution_timeout": "P1M"},
            "d": {"wait": {}},
            "1": {"empty": {}},
            "e": {"command": ["x", "${outputs.c}", "${params.y}"]},
        },
    }
    assert sorted(places(document)) == sorted(
        [
            ("/dag_id", "bad_id"),
            ("/schedule", "not_supported"),
            ("/desc", "unknown_field"),
            ("/params/properties/x/type", "bad_schema"),
            ("/max_active_runs", "out_of_range"),
            ("/tasks/a/retries", "out_of_range"),
            ("/tasks/a/depends_on", "cycle"),
            ("/tasks/b/depends_on/1", "unknown_upstream"),
            ("/tasks/b/cwd", "bad_cwd"),
            ("/tasks/c/command", "shell_not_asked"),
            ("/tasks/c/execution_timeout", "bad_duration"),
            ("/tasks/d/wait", "not_supported"),
            ("/tasks/1", "bad_id"),
            ("/tasks/e/command/1", "reference_not_upstream"),
            ("/tasks/e/command/2", "unknown_param"),
        ]
    )


def test_a_hostile_number_of_mistakes_is_cut_and_counted() -> None:
    fields: dict[str, Any] = {f"unknown_{no}": 1 for no in range(MOST + 500)}
    found = problems(doc(**fields))
    assert len(found) == MOST + 1
    assert (found[-1].code, found[-1].message) == ("too_many_problems", "There are 500 more problems.")


def test_a_document_too_deep_is_refused_before_anything_walks_it() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    assert [code for _, code in places(task(env=deep))] == ["too_deep"]
