"""Scenarios: workers take what they serve, when they are there, and no two of them the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from executors.base import Deferred, HealthStatus, Phase
from executors.conformance.scenario import scenario

if TYPE_CHECKING:
    from executors.conformance.bench import Bench


@scenario(11, "run_worker")
async def queue_is_taken_by_workers_that_serve_it(bench: Bench) -> None:
    """An attempt runs on a worker that serves its queue and on no other; where nobody serves it, it waits."""
    orphan = await bench.queue("nobody", shell="echo late >> $JOURNAL", env=bench.env())
    await bench.launch(orphan)
    for queue in ("left", "right"):
        worker = await bench.hooks.run_worker([queue], 1)
        attempt = await bench.queue(queue, argv=["true"])
        await bench.launch(attempt)
        row = await bench.end_of(attempt)
        bench.expect((queue, row.state, row.placed_on), (queue, "success", worker))
    bench.expect((bench.row(orphan).state, bench.lines("journal")), ("queued", []))
    await bench.hooks.run_worker(["nobody"], 1)
    bench.expect((await bench.end_of(orphan)).state, "success")
    bench.expect(bench.lines("journal"), ["late"])


@scenario(17, "stop_workers", "run_worker")
async def offer_waits_for_a_worker(bench: Bench) -> None:
    """What is launched while no worker is there runs as soon as one comes, once, and has cost nothing meanwhile."""
    await bench.hooks.stop_workers()
    attempts = await bench.queue_many(5, shell="echo $RUNYARD_ATTEMPT_ID >> $JOURNAL", env=bench.env())
    await bench.launch(*attempts)
    await asyncio.sleep(1.5)  # long enough to be offered again
    bench.expect([bench.row(attempt).state for attempt in attempts], ["queued"] * 5)
    await bench.hooks.run_worker(["default"], 2)
    for attempt in attempts:
        bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(sorted(bench.lines("journal")), sorted(attempts))


@scenario(12, "run_worker", "duplicate_delivery")
async def duplicate_delivery_to_another_worker_is_refused(bench: Bench) -> None:
    """Of two workers that get the same message one runs it, the other one leaves it alone."""
    await bench.hooks.run_worker(["default"], bench.harness.slots)
    shell = "echo $RUNYARD_ATTEMPT_ID >> $JOURNAL; sleep 0.5"
    attempts = await bench.queue_many(bench.harness.slots, shell=shell, env=bench.env())
    await bench.launch(*attempts)
    for _ in range(3):
        for attempt in attempts:
            await bench.hooks.duplicate_delivery(attempt)
    for attempt in attempts:
        bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(sorted(bench.lines("journal")), sorted(attempts))


@scenario(9, "run_worker")
async def workers_share_a_queue(bench: Bench) -> None:
    """Several workers of one queue run at once what they have slots for together, and no more."""
    await bench.hooks.run_worker(["default"], 1)
    slots = bench.harness.slots + 1
    shell = "echo +1 >> $JOURNAL; sleep 0.4; echo -1 >> $JOURNAL"
    attempts = await bench.queue_many(slots * 3, shell=shell, env=bench.env())
    await bench.launch(*attempts)
    for attempt in attempts:
        await bench.end_of(attempt)
    running = most = 0
    for line in bench.lines("journal"):
        running += int(line)
        most = max(most, running)
    bench.check(1 < most <= slots, f"{most} at the same time, with {slots} slots")
    bench.expect(running, 0)
    bench.expect(len({bench.row(attempt).placed_on for attempt in attempts}), 2)


@scenario(45)
async def observe_says_nothing_that_is_not_so(bench: Bench) -> None:
    """What was never launched is not there, and what runs is neither over nor gone, whatever else can be said."""
    bench.reconciles = False
    attempt = await bench.queue(shell="echo up >> $JOURNAL; sleep 0.5", env=bench.env())
    seen = await bench.observe(attempt)
    bench.check(seen.phase in (Phase.GONE, Phase.UNKNOWN), f"never launched, and {seen.phase}")
    await bench.launch(attempt)
    await bench.until(lambda: bench.lines("journal"), "it runs")
    seen = await bench.observe(attempt)
    bench.check(seen.phase in (Phase.PENDING, Phase.RUNNING, Phase.UNKNOWN), f"it runs, and is {seen.phase}")
    await bench.end_of(attempt)
    await bench.forgotten(attempt)


@scenario(7, "partition_infra")
async def broker_away_gives_deferred_never_failed(bench: Bench) -> None:
    """While the medium cannot be reached launches are deferred with a reason, soon; what runs runs on; it mends."""
    running = await bench.start(shell="echo up >> $JOURNAL; sleep 3; echo end >> $JOURNAL", env=bench.env())
    bench.reconciles = False
    await bench.hooks.partition_infra(True)  # noqa: FBT003  on or off is all it says
    attempt = await bench.queue(shell="echo once >> $JOURNAL.late", env=bench.env())
    async with asyncio.timeout(30):
        (result,) = await bench.offer(attempt)
    bench.check(isinstance(result, Deferred) and result.reason, f"deferred with a reason, not {result}")
    await bench.until(lambda: bench.executor.health().status is HealthStatus.DOWN, "it says that it is down")
    bench.expect((await bench.observe(attempt)).phase, Phase.UNKNOWN)
    await bench.hooks.partition_infra(False)  # noqa: FBT003  as above
    bench.reconciles = True
    bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect((await bench.end_of(running)).state, "success")
    bench.expect((bench.lines("journal"), bench.lines("journal.late")), (["up", "end"], ["once"]))


@scenario(8, "throttle_infra")
async def full_broker_defers_with_a_reason_and_recovers(bench: Bench) -> None:
    """A medium that takes nothing more for want of room defers with a reason, and goes on when there is some."""
    await bench.hooks.throttle_infra(True)  # noqa: FBT003  on or off is all it says
    bench.reconciles = False
    attempt = await bench.queue(shell="echo once >> $JOURNAL", env=bench.env())
    async with asyncio.timeout(30):
        (result,) = await bench.offer(attempt)
    bench.check(isinstance(result, Deferred) and result.reason, f"deferred with a reason, not {result}")
    await bench.hooks.throttle_infra(False)  # noqa: FBT003  as above
    bench.reconciles = True
    bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(bench.lines("journal"), ["once"])
