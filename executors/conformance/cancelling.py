"""Scenarios: what is asked to stop stops, in time, and says why."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from executors.conformance.scenario import scenario
from executors.conformance.world import is_alive

if TYPE_CHECKING:
    from executors.conformance.bench import Bench


@scenario(30)
async def cancel_while_queued_never_runs(bench: Bench) -> None:
    """An attempt that is cancelled before it starts never runs, told before or after its launch."""
    bench.reconciles = False
    before = await bench.queue(shell="echo before >> $JOURNAL", env=bench.env())
    await bench.cancel(before)
    await bench.launch(before)
    await bench.forgotten(before)
    bench.metastore.is_down = True
    after = await bench.queue(shell="echo after >> $JOURNAL", env=bench.env())
    await bench.launch(after)
    await bench.cancel(after)
    bench.metastore.is_down = False
    await bench.forgotten(after)
    await bench.run(argv=["true"])
    bench.expect(bench.lines("journal"), [])


@scenario(31)
async def cancel_while_running_asks_first(bench: Bench) -> None:
    """A running task hears SIGTERM, may clean up within its grace, and ends as cancelled."""
    attempt = await bench.start(
        shell="trap 'sleep 0.2; echo cleaned >> $JOURNAL; exit 0' TERM; echo up >> $JOURNAL; sleep 60 & wait",
        env=bench.env(),
        kill_grace=60.0,
    )
    await bench.until(lambda: bench.lines("journal") == ["up"], "it runs")
    began = time.monotonic()
    await bench.cancel(attempt)
    row = await bench.end_of(attempt)
    bench.expect((row.state, bench.lines("journal")), ("cancelled", ["up", "cleaned"]))
    bench.check(time.monotonic() - began < 30, "it did not wait for the whole grace")


@scenario(31)
async def cancel_is_heard_by_the_whole_tree(bench: Bench) -> None:
    """Every process of a task hears SIGTERM, in whatever session it is, not its leader alone."""
    child = "trap 'echo heard >> $JOURNAL; exit 0' TERM; echo up >> $JOURNAL; while :; do sleep 0.05; done"
    attempt = await bench.start(
        shell='trap : TERM; sh -c "$CHILD" & setsid sh -c "$CHILD" & wait; wait; wait',
        env={**bench.env(), "CHILD": child},
        kill_grace=60.0,
    )
    await bench.until(lambda: bench.lines("journal") == ["up", "up"], "it runs")
    await bench.cancel(attempt)
    bench.expect((await bench.end_of(attempt, within=30)).state, "cancelled")
    bench.expect(bench.lines("journal"), ["up", "up", "heard", "heard"])


@scenario(31)
async def cancel_says_its_reason(bench: Bench) -> None:
    """The end of a cancelled attempt names why: a person, the run's timeout, or another task's failure."""
    for reason, word in (("user", "request"), ("run_timeout", "run_timeout"), ("fail_fast", "fail_fast")):
        attempt = await bench.start(argv=["sleep", "60"])
        await bench.cancel(attempt, reason)  # type: ignore[arg-type]  # a tuple of literals widens to str
        row = await bench.end_of(attempt)
        bench.expect(row.state, "cancelled")
        bench.check(word in row.ending["error"], f"{row.ending['error']!r} says {word}")


@scenario(32)
async def cancel_ignoring_sigterm_is_killed(bench: Bench) -> None:
    """A task that does not listen is dead after its grace, every process of it."""
    attempt = await bench.start(
        shell="trap '' TERM; (trap '' TERM; echo $$ >> $JOURNAL; while :; do sleep 0.1; done) & "
        "echo $! >> $JOURNAL; while :; do sleep 0.1; done",
        env=bench.env(),
        kill_grace=0.5,
    )
    await bench.until(lambda: len(bench.lines("journal")) == 2, "it runs")
    await bench.cancel(attempt)
    row = await bench.end_of(attempt)
    bench.expect((row.state, row.ending["signal"]), ("cancelled", 9))
    bench.expect([pid for pid in bench.lines("journal") if is_alive(int(pid))], [])


@scenario(32)
async def cancel_reaches_a_stopped_process(bench: Bench) -> None:
    """A task that was stopped by SIGSTOP is ended as well."""
    attempt = await bench.start(shell="echo up >> $JOURNAL; kill -STOP $$", env=bench.env(), kill_grace=60.0)
    await bench.until(lambda: bench.lines("journal"), "it runs")
    await bench.cancel(attempt)
    bench.expect((await bench.end_of(attempt, within=30)).state, "cancelled")


@scenario(34)
async def cancel_racing_the_end_yields_one_terminal_state(bench: Bench) -> None:
    """A cancel that meets the end of a task leaves exactly one outcome, whichever won."""
    seen: set[str] = set()
    for number in range(30):
        attempt = await bench.start(shell="sleep 0.02")
        await asyncio.sleep(number * 0.0015)
        await bench.cancel(attempt)
        row = await bench.end_of(attempt)
        seen.add(row.state)
        bench.expect(len(row.history), 3)
    bench.check(seen <= {"success", "cancelled"}, f"{seen} are ends of a cancelled attempt")


@scenario(34)
async def cancel_of_an_ended_attempt_does_nothing(bench: Bench) -> None:
    """Cancelling what is over, or was never there, is no error and has no effect."""
    row = await bench.run(argv=["true"])
    await bench.executor.cancel([row.attempt_id, await bench.queue(argv=["true"])], reason="user")
    await asyncio.sleep(0.2)
    bench.expect(row.history, ["queued", "running", "success"])


@scenario(35, "kill_supervisor")
async def cancel_while_the_supervisor_is_dead_ends_as_lost(bench: Bench) -> None:
    """A cancel whose supervisor died still ends: the attempt is lost, and its processes are dead."""
    attempt = await bench.start(shell="echo $$ >> $JOURNAL; exec sleep 60", env=bench.env())
    await bench.until(lambda: bench.lines("journal"), "it runs")
    await bench.hooks.kill_supervisor()
    await bench.cancel(attempt)
    bench.check((await bench.end_of(attempt)).state in ("lost", "cancelled"), "it ended")
    bench.check(not is_alive(int(bench.lines("journal")[0])), "its process is dead")


@scenario(44)
async def drain_requeues_without_a_failure(bench: Bench) -> None:
    """Stopping what runs tasks lets them end within the drain; what is left is stopped and ends as ``drained``."""
    slots = bench.harness.slots
    long = await bench.start(shell="echo up >> $JOURNAL; sleep 60", env=bench.env())
    short = await bench.start(shell="sleep 0.3; echo '1' > $RUNYARD_OUTPUT") if slots > 1 else None
    await bench.until(lambda: bench.lines("journal"), "it runs")
    bench.reconciles = False
    await bench.drain(timedelta(seconds=3))
    bench.expect((await bench.end_of(long)).state, "drained")
    if short is not None:
        row = await bench.end_of(short)
        bench.expect((row.state, row.output()), ("success", 1))


@scenario(49)
async def stop_is_bounded_with_a_stuck_task(bench: Bench) -> None:
    """Stopping takes the drain and a few seconds at most, whatever a task does."""
    attempt = await bench.start(
        shell="trap '' TERM; echo $$ >> $JOURNAL; while :; do sleep 0.1; done", env=bench.env(), kill_grace=600.0
    )
    await bench.until(lambda: bench.lines("journal"), "it runs")
    bench.reconciles = False
    began = time.monotonic()
    await bench.drain(timedelta(seconds=0.2))
    bench.check(time.monotonic() - began < 40, "it stopped in time")
    bench.expect((await bench.end_of(attempt)).state, "drained")
    bench.check(not is_alive(int(bench.lines("journal")[0])), "its process is dead")
