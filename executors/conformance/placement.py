"""Scenarios: an attempt that is launched runs, once, when there is room."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from dag.ids import AttemptId, new_id
from executors.base import Accepted, Deferred, HealthStatus, Phase
from executors.conformance.scenario import scenario

if TYPE_CHECKING:
    from executors.conformance.bench import Bench


@scenario(1)
async def launch_runs_task_and_finishes_once(bench: Bench) -> None:
    """What is launched runs, and its end, output and log arrive once."""
    row = await bench.run(shell="echo once >> $JOURNAL; echo '[1]' > $RUNYARD_OUTPUT; echo done", env=bench.env())
    bench.expect(row.history, ["queued", "running", "success"])
    bench.expect((row.output(), row.ending["exit_code"], row.ending["signal"]), ([1], 0, None))
    bench.expect(bench.log(row.attempt_id), b"done\n")
    bench.expect(bench.lines("journal"), ["once"])


@scenario(2)
async def launch_same_attempt_twice_is_one_execution(bench: Bench) -> None:
    """Launching an attempt again, in one batch, while it runs and at once after its end, runs it once."""
    attempt = await bench.queue(shell="echo once >> $JOURNAL; sleep 0.2", env=bench.env())
    await bench.launch(attempt, attempt)
    await bench.launch(attempt)
    await bench.until(lambda: bench.lines("journal"), "it runs")
    await bench.launch(attempt)
    await bench.end_of(attempt)
    await bench.launch(attempt)
    await bench.forgotten(attempt)
    bench.expect(bench.lines("journal"), ["once"])


@scenario(4, "drop_connection")
async def launch_ambiguous_error_then_retry_no_second_start(bench: Bench) -> None:
    """A launch of which nobody knows whether it arrived is repeated and runs once."""
    attempts = await bench.queue_many(20, shell="echo $RUNYARD_ATTEMPT_ID >> $JOURNAL", env=bench.env())
    for attempt in attempts:
        await bench.launch(attempt)
        await bench.hooks.drop_connection()
        await bench.launch(attempt)
    for attempt in attempts:
        bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(sorted(bench.lines("journal")), sorted(attempts))


@scenario(7, "kill_supervisor")
async def infra_down_gives_deferred_never_failed(bench: Bench) -> None:
    """While the medium is away a launch is deferred with a reason; it works again by itself."""
    bench.only(not bench.by_queue, "its medium is no supervisor")
    await bench.run(argv=["true"])
    bench.reconciles = False
    await bench.hooks.kill_supervisor()
    attempt = await bench.queue(argv=["true"])
    await bench.until(lambda: bench.executor.health().status is HealthStatus.DOWN, "it says that it is down")
    (result,) = await bench.offer(attempt)
    bench.check(isinstance(result, Deferred) and result.reason, f"deferred with a reason, not {result}")
    bench.expect((await bench.observe(attempt)).phase, Phase.UNKNOWN)
    bench.reconciles = True
    bench.expect((await bench.end_of(attempt)).state, "success")


@scenario(9)
async def capacity_never_oversubscribed_under_burst(bench: Bench) -> None:
    """However many are launched at once, no more run at the same time than there are slots; all of them run."""
    shell = "echo +1 >> $JOURNAL; sleep 0.1; echo -1 >> $JOURNAL"
    slots = bench.harness.slots
    attempts = await bench.queue_many(min(40, 10 * slots), shell=shell, env=bench.env())
    results = await bench.offer(*attempts)
    if bench.executor.slots is not None:
        accepted = sum(isinstance(one, Accepted) for one in results)
        bench.check(accepted <= slots, "no more than slots accepted")
    for attempt in attempts:
        bench.expect((await bench.end_of(attempt)).state, "success")
    running = 0
    most = 0
    for line in bench.lines("journal"):
        running += int(line)
        most = max(most, running)
    bench.check(min(slots, 2) <= most <= slots, f"{most} at the same time, with {slots} slots")
    bench.expect(running, 0)


@scenario(9, "backlog")
async def freed_slot_takes_the_next_attempt_with_the_answer(bench: Bench) -> None:
    """A task that comes with the answer to a finish runs, without being launched, one slot after the other."""
    first = await bench.queue(argv=["true"])
    following = await bench.queue_many(10, shell="echo $RUNYARD_ATTEMPT_ID >> $JOURNAL", env=bench.env())
    bench.reconciles = False
    bench.metastore.backlog = list(following)
    await bench.launch(first)
    for attempt in following:
        bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(bench.lines("journal"), following)


@scenario(5)
async def launch_of_five_hundred_is_answered_item_by_item(bench: Bench) -> None:
    """A batch of five hundred gets an answer for each attempt, in order; those that are real run, the others cannot."""
    real = await bench.queue_many(25, argv=["true"])
    batch = []
    for attempt in real:
        launch = bench.metastore.launch(attempt)
        others = (new_id(bench.metastore.clock, bench.metastore.entropy) for _ in range(19))
        batch += [launch, *(replace(launch, attempt_id=AttemptId(other)) for other in others)]
    results = await bench.executor.launch(batch)
    bench.expect([result.attempt_id for result in results], [launch.attempt_id for launch in batch])
    for result in results:
        deferred = isinstance(result, Deferred) and result.reason and result.retry_after > timedelta(0)
        bench.check(isinstance(result, Accepted) or deferred, f"accepted, or deferred with a reason: {result}")
    for attempt in real:
        bench.expect((await bench.end_of(attempt)).state, "success")


@scenario(8)
async def full_executor_defers_with_a_reason_and_recovers(bench: Bench) -> None:
    """Where all slots are taken a launch is deferred with a reason, and accepted when one is free."""
    bench.only(bench.executor.slots is not None, "it has no slots of its own: those of its workers are counted")
    bench.reconciles = False
    shell = "echo up >> $JOURNAL; while ! test -e $JOURNAL.go; do sleep 0.02; done"
    running = await bench.queue_many(bench.harness.slots, shell=shell, env=bench.env())
    await bench.launch(*running)
    await bench.until(lambda: len(bench.lines("journal")) == len(running), "all slots are taken")
    attempt = await bench.queue(argv=["true"])
    (result,) = await bench.offer(attempt)
    bench.check(isinstance(result, Deferred) and result.reason, f"deferred with a reason, not {result}")
    bench.file("journal.go").touch()
    await bench.launch(attempt)
    bench.expect((await bench.end_of(attempt)).state, "success")


@scenario(17)
async def slow_start_is_still_a_start(bench: Bench) -> None:
    """An attempt whose start is not answered for a while is not given up: it is asked for until there is an answer."""
    bench.metastore.is_down = True
    attempt = await bench.queue(shell="echo once >> $JOURNAL", env=bench.env())
    await bench.launch(attempt)
    await asyncio.sleep(2)
    bench.expect((bench.row(attempt).state, bench.lines("journal")), ("queued", []))
    bench.metastore.is_down = False
    bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(bench.lines("journal"), ["once"])


@scenario(48)
async def one_broken_row_spares_the_others(bench: Bench) -> None:
    """An attempt whose start or end makes the metastore's side fail does not keep others from running."""
    slots = bench.harness.slots
    poisoned = await bench.queue(argv=["true"])
    bench.metastore.poisoned.add(poisoned)
    await bench.launch(poisoned)
    if slots > 1:
        bench.expect((await bench.run(argv=["true"])).state, "success")
    await asyncio.sleep(0.2)
    bench.metastore.poisoned.clear()
    bench.expect((await bench.end_of(poisoned)).state, "success")
    bench.expect((await bench.run(argv=["true"])).state, "success")
