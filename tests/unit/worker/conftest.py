"""Fixtures of remote agents: a small API and a worker that talks to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.worker.remote_api import Api
from tests.unit.worker.remote_kit import Kit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.stop()


@pytest.fixture
def kit(tmp_path: Path, api: Api) -> Iterator[Kit]:
    """A worker whose feeder is not started yet."""
    kit = Kit(tmp_path, api)
    yield kit
    kit.close()
