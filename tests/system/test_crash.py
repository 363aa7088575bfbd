from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.system.crash import crash_loop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.service import Service


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_kills_under_load_lose_nothing_and_start_nothing_twice(
    make_service: Callable[..., Service], tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    environ = {}
    if database == "postgres":
        environ["RUNYARD_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    service = make_service(**environ)
    port = free_port()
    service.start("--port", str(port))
    result = crash_loop(service, tmp_path / "journal", cycles=5, seed=7, port=port)
    assert result.problems == []
    assert result.accepted > 20
    assert result.starts > 20
    assert result.kills["service"] >= 2
    counts = result.report.counts
    assert all(counts[what] for what in ("at rest", "calls", "outputs seen", "reads", "decisions")), counts
