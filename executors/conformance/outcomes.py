"""Scenarios: every end is told apart, and no end is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from executors.conformance.scenario import scenario

if TYPE_CHECKING:
    from executors.conformance.bench import Bench


@scenario(20)
async def exit_zero_is_success_only_with_finish(bench: Bench) -> None:
    """A task that has ended well is no success before the metastore has noted it; until then it is seen as exited."""
    bench.metastore.is_down = False
    attempt = await bench.start(shell="sleep 0.2")
    bench.metastore.is_down = True
    await bench.over(attempt)
    await asyncio.sleep(0.2)
    bench.expect(bench.row(attempt).state, "running")
    bench.metastore.is_down = False
    bench.expect((await bench.end_of(attempt)).state, "success")


@scenario(21)
async def nonzero_exit_code_is_preserved(bench: Bench) -> None:
    """The exit code of a task arrives as it is; a missing command is told from a task that exits with 127."""
    for code in (1, 3, 127, 255):
        row = await bench.run(shell=f"exit {code}")
        bench.expect((row.state, row.ending["exit_code"], row.ending["signal"]), ("failed", code, None))
        bench.expect(row.ending["error"], f"exit code {code}")
    row = await bench.run(argv=["no-such-command-anywhere", "x"])
    bench.expect((row.state, row.ending["exit_code"]), ("failed", 127))
    bench.check("command not found: no-such-command-anywhere" in row.ending["error"], row.ending["error"])


@scenario(22)
async def killed_by_signal_reports_the_signal(bench: Bench) -> None:
    """A task that a signal ended says which one."""
    for number in (9, 15, 6):
        row = await bench.run(shell=f"kill -{number} $$")
        bench.expect((row.state, row.ending["exit_code"], row.ending["signal"]), ("failed", None, number))


@scenario(23)
async def segfault_of_one_task_spares_its_neighbours(bench: Bench) -> None:
    """A crash inside an interpreter is that task's failure, and nobody else's."""
    neighbour = await bench.start(shell="sleep 0.5; echo fine") if bench.harness.slots > 1 else None
    row = await bench.run(source="def main():\n    import ctypes\n    ctypes.string_at(0)\n")
    bench.expect((row.state, row.ending["signal"]), ("failed", 11))
    if neighbour is not None:
        bench.expect((await bench.end_of(neighbour)).state, "success")
    bench.expect((await bench.run(source="def main():\n    return 1\n")).output(), 1)


@scenario(25)
async def task_timeout_is_soft_then_hard(bench: Bench) -> None:
    """A task over its time gets SIGTERM, then after its grace SIGKILL; both ends are ``timed_out``."""
    soft = await bench.run(
        shell="trap 'echo told >> $JOURNAL; exit 5' TERM; sleep 30 & wait", env=bench.env(), timeout=0.3
    )
    bench.expect((soft.state, soft.ending["exit_code"]), ("timed_out", 5))
    bench.expect(bench.lines("journal"), ["told"])
    hard = await bench.run(shell="trap '' TERM; while :; do sleep 0.1; done", timeout=0.3, kill_grace=0.3)
    bench.expect((hard.state, hard.ending["signal"]), ("timed_out", 9))
    bench.check(0.5 < hard.ending["ended_at"] - hard.ending["started_at"] < 30, "killed after timeout and grace")


@scenario(26)
async def finish_is_repeated_after_a_lost_answer(bench: Bench) -> None:
    """When the answer to a finish is lost after its commit the finish comes again, is answered, changes nothing."""
    bench.metastore.lose_answers["finish"] = 2
    row = await bench.run(shell="echo 7 > $RUNYARD_OUTPUT")
    await bench.forgotten(row.attempt_id)
    bench.expect((row.state, row.output()), ("success", 7))
    bench.expect(bench.metastore.heard["finish"], 3)


@scenario(27)
async def outcome_survives_an_outage_of_the_metastore(bench: Bench) -> None:
    """Tasks that end while the metastore is away are noted when it is back, outputs included."""
    attempts = [await bench.start(shell="sleep 0.3; echo $PPID > $RUNYARD_OUTPUT") for _ in range(bench.harness.slots)]
    bench.metastore.is_down = True
    for attempt in attempts:
        await bench.over(attempt)
    await asyncio.sleep(1.5)
    bench.metastore.is_down = False
    for attempt in attempts:
        row = await bench.end_of(attempt)
        bench.expect((row.state, isinstance(row.output(), int)), ("success", True))


@scenario(29, "kill_supervisor")
async def poison_task_costs_only_its_own_attempts(bench: Bench) -> None:
    """A task that takes its supervisor down each time it is tried is a loss each time; what comes after it runs."""
    for _ in range(3):
        attempt = await bench.start(shell="echo up >> $JOURNAL; sleep 60", env=bench.env())
        await bench.until(lambda: bench.lines("journal"), "it runs")
        bench.file("journal").unlink()
        await bench.hooks.kill_supervisor()
        bench.expect((await bench.end_of(attempt)).state, "lost")
        bench.expect((await bench.run(argv=["true"])).state, "success")


@scenario(28, "kill_supervisor")
async def outcome_survives_the_supervisors_death(bench: Bench) -> None:
    """A supervisor that dies between a task's end and the note of it loses nothing: its successor tells it."""
    attempt = await bench.start(shell="sleep 0.2; echo '{\"kept\": true}' > $RUNYARD_OUTPUT; echo said")
    bench.metastore.is_down = True
    await bench.over(attempt)
    bench.reconciles = False
    await bench.hooks.kill_supervisor()
    bench.metastore.is_down = False
    bench.reconciles = True
    row = await bench.end_of(attempt)
    bench.expect((row.state, row.output(), bench.log(attempt)), ("success", {"kept": True}, b"said\n"))
