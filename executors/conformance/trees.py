"""Scenarios: a task is its whole process tree, however its members tried to leave it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from executors.conformance.scenario import scenario
from executors.conformance.world import is_alive

if TYPE_CHECKING:
    from dag.ids import AttemptId
    from executors.conformance.bench import Bench

#: Ways out of a tree; each leaves a process that writes its pid into $JOURNAL.
_ESCAPES = {
    "background": "(trap '' TERM HUP; sh -c 'echo $$ >> $JOURNAL; exec sleep 61') &",
    "own session": "setsid sh -c 'trap \"\" TERM HUP; echo $$ >> $JOURNAL; while :; do sleep 0.5; done' &",
    "double fork": "(setsid sh -c 'sh -c \"echo \\$\\$ >> $JOURNAL; exec sleep 62\" & exit 0' &)",
    "no environment": 'J=$JOURNAL; env -i setsid sh -c \'trap "" TERM; echo $$ >> \'"$J"\'; '
    "while :; do sleep 0.5; done' &",
    "closed descriptors": "(setsid sh -c 'exec </dev/null >/dev/null 2>&1; echo $$ >> $JOURNAL; exec sleep 63' &)",
}
_DAEMON = """
def main(journal):
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(journal, "a") as file:
                file.write("%d\\n" % os.getpid())
            time.sleep(60)
        os._exit(0)
    os.wait()
    while not os.path.exists(journal) or not os.path.getsize(journal):
        time.sleep(0.01)
"""


async def _pids(bench: Bench, count: int) -> list[int]:
    await bench.until(lambda: len(bench.lines("journal")) >= count, f"{count} processes write their pids")
    return [int(line) for line in bench.lines("journal")]


async def _cancel_and_count(bench: Bench, attempt: AttemptId, pids: list[int]) -> None:
    await bench.cancel(attempt)
    row = await bench.end_of(attempt)
    bench.expect(row.state, "cancelled")
    bench.expect([pid for pid in pids if is_alive(pid)], [])


def _has_two_lines(bench: Bench, name: str) -> bool:
    return len(bench.lines(name)) == 2


@scenario(33)
async def cancel_kills_daemonised_grandchildren(bench: Bench) -> None:
    """After a cancel nothing of the tree is alive: not in its own session, twice forked, or without an environment."""
    for name, escape in _ESCAPES.items():
        bench.file("journal").unlink(missing_ok=True)
        attempt = await bench.start(shell=f"{escape}\nsleep 60", env=bench.env(), kill_grace=0.3)
        pids = await _pids(bench, 1)
        bench.check(all(map(is_alive, pids)), f"{name}: it escaped")
        await _cancel_and_count(bench, attempt, pids)


@scenario(33)
async def end_kills_what_a_task_left_behind(bench: Bench) -> None:
    """When a task ends by itself what it left running is dead before its end is told, and its end is its own."""
    for name, escape in _ESCAPES.items():
        bench.file("journal").unlink(missing_ok=True)
        shell = f"{escape}\nwhile ! test -s $JOURNAL; do sleep 0.01; done; exit 3"
        row = await bench.run(shell=shell, env=bench.env())
        bench.expect((name, row.state, row.ending["exit_code"]), (name, "failed", 3))
        bench.expect((name, [pid for pid in await _pids(bench, 1) if is_alive(pid)]), (name, []))


@scenario(33)
async def end_of_a_python_task_kills_its_daemons(bench: Bench) -> None:
    """The same holds for daemons that a Python task forks."""
    row = await bench.run(source=_DAEMON, args=[str(bench.file("journal"))])
    bench.expect(row.state, "success")
    bench.expect([pid for pid in await _pids(bench, 1) if is_alive(pid)], [])


@scenario(33)
async def trees_are_dead_two_hundred_times_over(bench: Bench) -> None:
    """It holds every time, with neighbours running beside: two hundred trees of four processes each."""
    done = 0
    while done < 200:
        attempts = []
        for number in range(bench.harness.slots):
            name = f"journal{done + number}"
            shell = (
                "setsid sh -c 'echo $$ >> $JOURNAL; sleep 64 & wait' & "
                "(setsid sh -c 'sh -c \"echo \\$\\$ >> $JOURNAL; exec sleep 65\" & exit 0' &) ; sleep 66"
            )
            attempts.append((name, await bench.queue(shell=shell, env=bench.env(name), kill_grace=0.0)))
        await bench.launch(*[attempt for _, attempt in attempts])
        for name, attempt in attempts:
            await bench.until(partial(_has_two_lines, bench, name), "the tree is there")
            await bench.cancel(attempt)
        for name, attempt in attempts:
            await bench.end_of(attempt)
            bench.expect([pid for pid in bench.lines(name) if is_alive(int(pid))], [])
        done += len(attempts)
