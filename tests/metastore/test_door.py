from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from scheduler.door import MetastoreDoor
from scheduler.metrics import SchedulerMetrics
from tests.metastore.flow import Flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metastore.commands.admission import Admitted
    from metastore.store import Store
    from tests.world import FakeClock
    from worker.protocol import Start


LEASE = timedelta(seconds=90)


def nobody(_: Sequence[Admitted]) -> None:
    return None


async def test_a_task_whose_start_is_answered_after_a_cancel_comes_with_the_directive_first(
    store: Store, clock: FakeClock
) -> None:
    """The first answer was lost; the run was cancelled; a supervisor that has not begun must not begin."""
    flow = Flow(store, clock)
    await flow.slots()
    await flow.put({"a": {}})
    run, [a] = await flow.trigger()
    door = MetastoreDoor(store, lambda: [flow.outlet], nobody, SchedulerMetrics(CollectorRegistry()), lease=LEASE)
    question: Start = {"type": "start", "attempt_id": a.attempt_id, "boot_id": flow.boot}
    assert [answer["type"] for answer in await door.start(question, flow.agent)] == ["task"]
    await flow.cancel(run)
    assert [answer["type"] for answer in await door.start(question, flow.agent)] == ["cancel", "task"]
