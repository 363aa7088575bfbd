"""Real processes, each test module with a service of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.service import ROOT, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with the examples' code, shared by the tests of a module."""
    made = Service(tmp_path_factory.mktemp("shared") / "home", {"RUNYARD_CODE_DIR": str(ROOT / "examples")})
    try:
        yield made.start()
    finally:
        made.end()


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Return a maker of services that are not started yet and gone after the test."""
    made: list[Service] = []

    def make(name: str = "home", **environ: str) -> Service:
        made.append(Service(tmp_path / name, environ))
        return made[-1]

    yield make
    for one in made:
        one.end()
