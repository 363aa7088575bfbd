"""The example DAGs, as they are, under each executor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.queues.crew import Crew, get
from tests.system.service import ROOT, Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = ROOT / "examples"
PATIENCE = 90.0
#: The executor, and the fixture with the URL of its broker.
EXECUTORS = [
    pytest.param("sequential", None, id="sequential"),
    pytest.param("local", None, id="local"),
    pytest.param("dramatiq", "redis_url", id="dramatiq-redis", marks=pytest.mark.redis),
    pytest.param("dramatiq", "rabbit_url", id="dramatiq-rabbitmq", marks=pytest.mark.rabbitmq),
    pytest.param("celery", "redis_url", id="celery-redis", marks=pytest.mark.redis),
]


@pytest.fixture
def service(request: pytest.FixtureRequest, tmp_path: Path, executor: str, broker: str | None) -> Iterator[Service]:
    """An installation whose only executor this is, with a worker where it needs one."""
    environ = {"RUNYARD_EXECUTORS": executor, "RUNYARD_CODE_DIR": str(EXAMPLES)}
    url = None if broker is None else request.getfixturevalue(broker)
    if url is not None:
        environ["RUNYARD_BROKER_URL"] = url
    made, crew = Service(tmp_path / "home", environ), None
    try:
        made.start()
        if url is not None:
            key = made.ask("keys", "create", "workers", "--scope", "work")["key"]
            crew = Crew(made, tmp_path / "crew", url, key, executor)
            crew.runyard("--concurrency", "2", RUNYARD_CODE_DIR=str(EXAMPLES))
            crew.wait_for(1)
        yield made
    finally:
        if crew is not None:
            crew.end()
        made.end()


def run(service: Service, dag_id: str, *args: str) -> dict[str, Any]:
    """Run a DAG to its end, and return its tasks."""
    run_id = quote(service.ask("trigger", dag_id, *args)["run_id"], safe="")
    path = f"/dags/{dag_id}/runs/{run_id}"
    wait_for(lambda: get(service, path)["state"] in ("success", "failed"), PATIENCE)
    assert get(service, path)["state"] == "success"
    names = [task["task_id"] for task in get(service, f"{path}/tasks")["items"]]
    return {name: get(service, f"{path}/tasks/{name}") for name in names}


@pytest.mark.parametrize(("executor", "broker"), EXECUTORS)
def test_the_examples_run_under_each_executor_unchanged(service: Service, executor: str) -> None:
    assert service.cli("apply", "-f", str(EXAMPLES / "seed"), "-f", str(EXAMPLES / "access_log")).returncode == 0
    seed = run(service, "seed", "--param", "name=you")
    assert seed["greeting"]["output"] == "Hello, YOU!"
    tasks = run(service, "access_log")
    assert {task["executor"] for task in (*seed.values(), *tasks.values())} == {executor}
    assert {task["state"] for task in tasks.values()} == {"success"}
    assert tasks["report"]["output"]
