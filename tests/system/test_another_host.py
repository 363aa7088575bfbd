"""A service whose home's agent another host has: a copied home, or a host that has another name since a crash."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest

from tests.system.service import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.service import Service

pytestmark = pytest.mark.postgres
_ELSEWHERE = "UPDATE agents SET host = 'elsewhere', lease_until = clock_timestamp() + $1 * interval '1 second'"


def give_away(url: str, seconds: float) -> None:
    """Let it be another host that has the agent, for so long."""

    async def give() -> None:
        conn = await asyncpg.connect(url)
        await conn.execute(_ELSEWHERE, seconds)
        await conn.close()

    asyncio.run(give())


def said(service: Service, event: str) -> bool:
    return any(json.loads(line)["event"] == event for line in service.log.read_text().splitlines())


def test_it_serves_says_so_and_works_once_the_lease_of_the_other_is_over(
    make_service: Callable[..., Service], postgres_url: str, tmp_path: Path
) -> None:
    made = make_service(RUNYARD_DATABASE_URL=postgres_url, RUNYARD_WORKER_LEASE="5").start()
    (document := tmp_path / "d.yaml").write_text("dag_id: d\ntasks: {a: {command: ['true']}}\n")
    assert made.cli("apply", "-f", str(document)).returncode == 0
    made.kill()
    give_away(postgres_url, 600)
    made.start()
    assert said(made, "another host has the agent of this home")
    unwell = wait_for(lambda: (done := made.cli("health")).returncode and done)
    assert "the host elsewhere has the agent of this home" in unwell.stdout + unwell.stderr
    give_away(postgres_url, 0)
    run = made.ask("trigger", "d", "--wait", "--timeout", "30")
    assert run["state"] == "success"
    assert said(made, "the agent of this home is ours")
    wait_for(lambda: made.cli("health").returncode == 0)  # it is written down now and then
    assert made.stop() == 0


def test_it_stops_when_it_is_asked_to(make_service: Callable[..., Service], postgres_url: str) -> None:
    made = make_service(RUNYARD_DATABASE_URL=postgres_url).start()
    made.kill()
    give_away(postgres_url, 600)
    made.start()
    assert said(made, "another host has the agent of this home")
    assert made.stop() == 0
    assert made.agents() == []
