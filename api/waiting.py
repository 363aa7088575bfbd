"""Waiting for the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dag.states import RUN_FINAL
from metastore.queries import runs

if TYPE_CHECKING:
    from starlette.requests import Request

    from api.dependencies import Services
    from metastore.records import RunRecord


async def until_final(
    service: Services, request: Request, dag_id: str, run_id: str, seconds: float
) -> RunRecord | None:
    """Return a run once it has ended, or as it stands after *seconds*; None when it is not there (any more)."""
    store = service.store
    deadline = service.clock.monotonic() + seconds
    life = service.streams.life(request.state.caller)
    run = await store.read(runs.get, dag_id, run_id)
    if run is None:
        return None
    changes = store.subscribe(f"ended:{run.id}")
    try:
        while True:
            # Looked at after the subscription: what changed before it is seen here, what changes later wakes the pause.
            run = await store.read(runs.by_id, run.id)
            left = deadline - service.clock.monotonic()
            if run is None or run.state in RUN_FINAL or left <= 0 or await request.is_disconnected():
                return run
            beat = await life.pause(changes, left)
            if await life.over(beat=beat) is not None:
                return run
    finally:
        changes.close()
