"""Scenarios: between worker and metastore are a network, an API that may be away, and clocks that may be wrong."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from executors.conformance.scenario import scenario
from executors.conformance.world import marked

if TYPE_CHECKING:
    from executors.conformance.bench import Bench

_SHORT = timedelta(seconds=5)
#: What lies between the moment when a worker kills its tasks and that when they may run elsewhere.
_MARGIN = 0.5
#: Says what it does into its log and the journal, twenty times a second, until it is killed.
_TICKS = "while :; do echo tick; echo tick >> $JOURNAL; sleep 0.05; done"


async def _survive(bench: Bench, seconds: float) -> None:
    """Have no API for *seconds* while tasks run, end and write."""
    lines = "".join(f"{number}\n" for number in range(8))
    shell = (
        "echo $RUNYARD_ATTEMPT_ID >> $JOURNAL; for i in 0 1 2 3 4 5 6 7; do echo $i; sleep $PAUSE; done; "
        "echo '\"whole\"' > $RUNYARD_OUTPUT"
    )
    pauses = (0.05, seconds / 16, seconds / 5, seconds / 5)[: bench.harness.slots]
    attempts = [await bench.start(shell=shell, env={**bench.env(), "PAUSE": f"{pause:.2f}"}) for pause in pauses]
    await bench.until(lambda: len(bench.lines("journal")) == len(attempts), "they run")
    await bench.switches.outage(True)  # noqa: FBT003  on or off is all it says
    await asyncio.sleep(seconds)
    await bench.switches.outage(False)  # noqa: FBT003  as above
    for attempt in attempts:
        row = await bench.end_of(attempt)
        bench.expect((row.state, row.output(), bench.log(attempt)), ("success", "whole", lines.encode()))
    bench.expect(sorted(bench.lines("journal")), sorted(attempts))
    bench.expect((await bench.run(argv=["true"])).state, "success")


@scenario(27, "outage")
async def api_outage_in_the_middle_of_tasks(bench: Bench) -> None:
    """While no API is there tasks go on, end and write; when it is back all of it is told, and nothing ran twice."""
    await _survive(bench, 5)


@scenario(27, "outage", long=True)
async def api_outage_of_a_minute(bench: Bench) -> None:
    """The same for a whole minute, with the lease that is the default."""
    await bench.switches.have_lease(timedelta(seconds=90))
    await _survive(bench, 60)


@scenario(27, "partition")
async def silent_network_delays_and_loses_nothing(bench: Bench) -> None:
    """A network that takes everything and brings nothing back, and then all of it at once, changes no outcome."""
    attempt = await bench.start(shell="echo once >> $JOURNAL; sleep 0.5; echo 7 > $RUNYARD_OUTPUT", env=bench.env())
    bench.switches.partition("hangs")
    late = await bench.queue(shell="echo late >> $JOURNAL", env=bench.env())
    await bench.launch(late)
    await asyncio.sleep(3)
    bench.switches.partition("open")
    row = await bench.end_of(attempt)
    bench.expect((row.state, row.output()), ("success", 7))
    bench.expect((await bench.end_of(late)).state, "success")
    bench.expect(bench.lines("journal"), ["once", "late"])


async def _fence(bench: Bench, state: str) -> None:
    await bench.switches.have_lease(_SHORT)
    attempt = await bench.start(shell=_TICKS, env=bench.env(), kill_grace=60.0)
    await bench.until(lambda: bench.lines("journal"), "it runs")
    bench.longest_stall = 0.0
    bench.switches.partition(state)  # type: ignore[arg-type]  # the two literals below
    row = await bench.end_of(attempt)
    # From this moment on the next try may run.
    alive, ticks = marked(f"RUNYARD_ATTEMPT_ID={attempt}"), len(bench.lines("journal"))
    bench.only(not alive or bench.longest_stall < _MARGIN, "this machine stood still for longer than a lease's margin")
    bench.expect((row.state, row.finish, alive), ("lost", None, []))
    bench.switches.partition("open")
    bench.expect((await bench.run(argv=["true"])).state, "success")
    bench.expect((bench.row(attempt).history, len(bench.lines("journal"))), (["queued", "running", "lost"], ticks))
    await bench.until(lambda: bench.log(attempt).count(b"tick\n") >= ticks - 1, "its log arrives all the same")


@scenario(42, "partition", also=(54,))
async def partitioned_worker_fences_itself_before_its_tasks_run_elsewhere(bench: Bench) -> None:
    """A worker that cannot reach the API kills its tasks before they are given up there; their logs still arrive."""
    await _fence(bench, "hangs")


@scenario(42, "partition", also=(54,), long=True)
async def refused_worker_fences_itself_before_its_tasks_run_elsewhere(bench: Bench) -> None:
    """The same where connections are refused instead of taken and left silent."""
    await _fence(bench, "refuses")


@scenario(42, "partition")
async def task_that_may_outlive_its_lease_does(bench: Bench) -> None:
    """A task that says ``on_lost_contact: continue`` is not killed; its end comes too late and changes nothing."""
    await bench.switches.have_lease(_SHORT)
    attempt = await bench.start(
        shell="echo up >> $JOURNAL; while ! test -e $JOURNAL.go; do sleep 0.05; done; echo end >> $JOURNAL",
        env=bench.env(),
        on_lost_contact="continue",
    )
    await bench.until(lambda: bench.lines("journal"), "it runs")
    bench.switches.partition("refuses")
    bench.expect((await bench.end_of(attempt)).state, "lost")
    bench.file("journal.go").touch()
    await bench.until(lambda: bench.lines("journal") == ["up", "end"], "it was left alone")
    bench.switches.partition("open")
    bench.expect((await bench.run(argv=["true"])).state, "success")
    bench.expect(bench.row(attempt).history, ["queued", "running", "lost"])


@scenario(43, "outage")
async def no_lease_runs_out_while_no_api_serves(bench: Bench) -> None:
    """An outage of the API that is longer than every lease loses nothing that could go on without it."""
    await bench.switches.have_lease(_SHORT)
    attempts = [
        await bench.start(
            shell="echo $RUNYARD_ATTEMPT_ID >> $JOURNAL; sleep 10", env=bench.env(), on_lost_contact="continue"
        )
        for _ in range(bench.harness.slots)
    ]
    await bench.until(lambda: len(bench.lines("journal")) == len(attempts), "they run")
    await bench.switches.outage(True)  # noqa: FBT003  on or off is all it says
    await asyncio.sleep(_SHORT.total_seconds() + 2)
    await bench.switches.outage(False)  # noqa: FBT003  as above
    for attempt in attempts:
        bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(sorted(bench.lines("journal")), sorted(attempts))


@scenario(35, "partition")
async def cancel_during_a_partition_is_heard_after_it(bench: Bench) -> None:
    """A cancel whose worker cannot be reached is heard when it can; the attempt ends as cancelled, its tree dead."""
    attempt = await bench.start(shell="echo up >> $JOURNAL; sleep 60", env=bench.env())
    await bench.until(lambda: bench.lines("journal"), "it runs")
    bench.switches.partition("refuses")
    await bench.cancel(attempt)
    await asyncio.sleep(1)
    bench.expect(bench.row(attempt).state, "running")
    bench.switches.partition("open")
    bench.expect((await bench.end_of(attempt)).state, "cancelled")
    bench.expect(marked(f"RUNYARD_ATTEMPT_ID={attempt}"), [])


@scenario(47, "skew")
async def clocks_an_hour_apart_are_harmless(bench: Bench) -> None:
    """Whether the service's clock is an hour ahead or behind, attempts start, run their time and end as they should."""
    for hours in (1, -1):
        bench.switches.skew(timedelta(hours=hours))
        row = await bench.run(shell="sleep 0.3", timeout=30.0)
        took = row.ending["ended_at"] - row.ending["started_at"]
        bench.expect((hours, row.state), (hours, "success"))
        bench.check(0.2 < took < 20, f"it took {took:.1f} s by its own account")
        stopped = await bench.start(argv=["sleep", "60"])
        await bench.cancel(stopped)
        bench.expect((hours, (await bench.end_of(stopped)).state), (hours, "cancelled"))


@scenario(53, "ships_logs")
async def log_pieces_come_again_without_gap_or_double(bench: Bench) -> None:
    """When answers to pieces of a log are lost the pieces come again, and the log is what the task wrote."""
    bench.metastore.lose_answers["logs"] = 3
    shell = "i=0; while [ $i -lt 20 ]; do head -c 20000 /dev/zero | tr '\\0' $i; echo; sleep 0.1; i=$((i+1)); done"
    row = await bench.run(shell=shell)
    wanted = b"".join(str(n).encode()[:1] * 20_000 + b"\n" for n in range(20))
    bench.expect((row.state, row.ending["log_size"]), ("success", len(wanted)))
    bench.expect(bench.log(row.attempt_id), wanted)
    bench.check(bench.metastore.lose_answers["logs"] == 0, "answers were lost")
