"""What only one broker does, and what its workers make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from executors.conformance import Bench
from runyard.conformance.plugin import LOOP
from tests.conformance.mediums import RabbitMedium

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conformance.queue_harness import QueueHarness

_LONG = 14 * 24 * 3600 * 1000


@pytest.mark.rabbitmq
@pytest.mark.postgres
def test_a_channel_that_rabbitmq_closes_costs_nothing(
    dramatiq_rabbitmq: Callable[[Path], QueueHarness], tmp_path: Path
) -> None:
    """It closes the channel of who has a message for too long; then the message comes again, while its task runs."""
    harness = dramatiq_rabbitmq(tmp_path)
    medium = harness.site.medium
    assert isinstance(medium, RabbitMedium)
    LOOP.run(_close_channels(harness, medium))
    assert {queue["arguments"]["x-consumer-timeout"] for queue in medium.queues()} == {_LONG}


async def _close_channels(harness: QueueHarness, medium: RabbitMedium) -> None:
    bench = Bench(harness)
    await bench.open()
    try:
        shell = "echo once >> $JOURNAL; while ! test -e $JOURNAL.go; do sleep 0.05; done"
        attempt = await bench.start(shell=shell, env=bench.env())
        await bench.until(lambda: bench.lines("journal"), "it runs")
        for _ in range(3):
            medium.drop_connections()
            assert (await bench.run(argv=["true"])).state == "success"
        bench.file("journal.go").touch()
        assert (await bench.end_of(attempt)).state == "success"
        await bench.settle()
        assert bench.lines("journal") == ["once"]
    finally:
        await bench.close()
