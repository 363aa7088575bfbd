"""Scenarios: whoever wins the start runs it; nobody else does anything."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from executors.conformance.scenario import scenario

if TYPE_CHECKING:
    from executors.conformance.bench import Bench


@scenario(12, "duplicate_delivery")
async def duplicate_delivery_while_running_is_one_execution(bench: Bench) -> None:
    """A message that launches an attempt, delivered again while it runs, changes nothing."""
    attempt = await bench.start(shell="echo once >> $JOURNAL; sleep 0.5", env=bench.env())
    for _ in range(5):
        await bench.hooks.duplicate_delivery(attempt)
    bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(bench.lines("journal"), ["once"])


@scenario(13, "duplicate_delivery")
async def duplicate_delivery_after_finish_is_harmless(bench: Bench) -> None:
    """A message that launches an attempt, delivered after its end, starts nothing and leaves nothing."""
    row = await bench.run(shell="echo once >> $JOURNAL", env=bench.env())
    await bench.forgotten(row.attempt_id)
    await bench.hooks.duplicate_delivery(row.attempt_id)
    bench.expect((await bench.run(argv=["true"])).state, "success")
    await bench.forgotten(row.attempt_id)
    bench.expect(bench.lines("journal"), ["once"])


@scenario(14)
async def start_answer_lost_is_replayed_to_the_same_supervisor(bench: Bench) -> None:
    """When the answer to a start is lost after its commit the supervisor asks again, gets the task, runs it once."""
    bench.metastore.lose_answers["start"] = 2
    row = await bench.run(shell="echo once >> $JOURNAL", env=bench.env())
    bench.expect(row.state, "success")
    bench.expect(bench.lines("journal"), ["once"])


@scenario(15)
async def start_after_cancel_never_runs_user_code(bench: Bench) -> None:
    """An attempt that was cancelled before its start is refused and leaves no trace."""
    bench.metastore.is_down = True
    attempt = await bench.queue(shell="echo never >> $JOURNAL", env=bench.env())
    await bench.launch(attempt)
    await bench.metastore.cancel(attempt)
    bench.metastore.is_down = False
    await bench.forgotten(attempt)
    await bench.run(argv=["true"])
    bench.expect(bench.lines("journal"), [])


@scenario(16)
async def stale_attempt_changes_nothing(bench: Bench) -> None:
    """The finish of an attempt that was given up is not accepted, and the supervisor forgets it."""
    attempt = await bench.start(shell="sleep 0.3; echo '\"stale\"' > $RUNYARD_OUTPUT")
    await bench.metastore.lose(attempt)
    await bench.forgotten(attempt)
    row = bench.row(attempt)
    bench.expect((row.state, row.finish, row.history), ("lost", None, ["queued", "running", "lost"]))


@scenario(18, "break_interpreter")
async def never_started_is_told_from_failed(bench: Bench) -> None:
    """Where no user code can be started the outcome is a loss with its reason, not a failure of the task."""
    await bench.take(bench.hooks.break_interpreter(bench.context))
    row = await bench.run(argv=["true"])
    bench.expect(row.state, "lost")
    bench.check("RUNYARD_TASK_PYTHON" in row.ending["error"], f"{row.ending['error']!r} names the setting")


@scenario(42)
async def supervisor_without_renewal_fences_itself(bench: Bench) -> None:
    """A lease that is not renewed in time ends the tasks under it; one that is renewed does not."""
    bench.only(not bench.by_queue, "its workers have leases of their own, and renew them themselves")
    attempt = await bench.start(shell="while :; do echo tick >> $JOURNAL; sleep 0.05; done", env=bench.env())
    for _ in range(8):
        bench.executor.renew(timedelta(seconds=2))
        await asyncio.sleep(0.4)
    bench.expect(bench.row(attempt).state, "running")
    row = await bench.end_of(attempt)
    bench.expect(row.state, "lost")
    ticks = len(bench.lines("journal"))
    await asyncio.sleep(0.2)
    bench.expect(len(bench.lines("journal")), ticks)
    bench.executor.renew(None)
    bench.expect((await bench.run(argv=["true"])).state, "success")
