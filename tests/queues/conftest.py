"""A broker of each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from executors.base import ExecutorConfig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> ExecutorConfig:
    return ExecutorConfig(
        name="dramatiq", home=tmp_path, code_dir=tmp_path, log_dir=tmp_path, task_python="python", parallelism=1
    )


@pytest.fixture(
    params=[pytest.param("redis", marks=pytest.mark.redis), pytest.param("rabbit", marks=pytest.mark.rabbitmq)]
)
def broker_url(request: pytest.FixtureRequest) -> str:
    """An empty broker, each of the two in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["dramatiq", "celery"])
def library(request: pytest.FixtureRequest) -> str:
    """The name of an executor, each of the two in turn."""
    name: str = request.param
    return name
