"""The slow poll sweeps what is old, all of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from sqlalchemy import func, insert, select

from metastore.models.keys import idempotency_keys
from scheduler.metrics import SchedulerMetrics
from scheduler.safety import Safety
from scheduler.settings import SchedulerSettings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from metastore.store import Store, Tx
    from tests.world import FakeClock

_OLD = 1_200


async def test_all_answers_that_are_too_old_go_in_one_sweep(store: Store, clock: FakeClock) -> None:
    """However many a day brings: a few hundred an hour would let the table grow for ever."""
    settings = SchedulerSettings(safety_poll=timedelta(0))
    metrics = SchedulerMetrics(CollectorRegistry())

    def keep(tx: Tx) -> None:
        rows = [(n, tx.now - settings.keep_answers - timedelta(seconds=1)) for n in range(_OLD)] + [(-1, tx.now)]
        what = {"principal": "p", "fingerprint": "", "status": 200, "headers": {}, "body": ""}
        tx.conn.execute(insert(idempotency_keys), [what | {"key": f"k{n}", "created_at": at} for n, at in rows])

    def left(conn: Connection) -> int:
        return conn.execute(select(func.count()).select_from(idempotency_keys)).scalar_one()

    await store.write(keep)
    safety = Safety(store, clock, metrics, settings)
    await safety.poll()
    assert await store.read(left) == _OLD + 1
    clock.move(timedelta(hours=1))
    await safety.poll()
    assert await store.read(left) == 1
