"""Scenarios: whatever dies, what runs is adopted or proved dead, and nothing runs twice."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from executors.base import Phase
from executors.conformance.scenario import scenario
from executors.conformance.world import is_alive

if TYPE_CHECKING:
    from executors.conformance.bench import Bench


@scenario(36, "kill_supervisor")
async def killed_supervisor_takes_its_tasks_along(bench: Bench) -> None:
    """When the supervisor is killed its tasks die with it at once, daemons too, and its successor proves it."""
    attempt = await bench.start(
        shell="env -i J=$JOURNAL setsid sh -c 'echo $$ >> $J; exec sleep 67' & "
        "setsid sh -c 'echo $$ >> $JOURNAL; sleep 68' & echo $$ >> $JOURNAL; sleep 69",
        env=bench.env(),
    )
    await bench.until(lambda: len(bench.lines("journal")) == 3, "it runs")
    pids = [int(line) for line in bench.lines("journal")]
    old = bench.row(attempt).boot_id
    bench.reconciles = False
    await bench.hooks.kill_supervisor()
    await bench.until(lambda: not any(map(is_alive, pids)), "all its processes are dead", within=10)
    if not bench.by_queue:
        seen = await bench.phase(attempt, Phase.GONE)
        bench.check(seen.boot_id not in (None, old), "another supervisor says so")
    bench.reconciles = True
    bench.expect((await bench.end_of(attempt)).state, "lost")
    bench.expect((await bench.run(argv=["true"])).state, "success")


@scenario(37, "kill_host")
async def killed_host_is_a_loss_of_its_attempts_only(bench: Bench) -> None:
    """When the process that hosts tasks is killed its attempts are lost, once, and the next ones run."""
    attempts = [
        await bench.start(
            shell="env -i J=$JOURNAL setsid sh -c 'echo $$ >> $J; exec sleep 67' & sleep 69", env=bench.env()
        )
        for _ in range(bench.harness.slots)
    ]
    await bench.until(lambda: len(bench.lines("journal")) == bench.harness.slots, "they run")
    await bench.hooks.kill_host()
    for attempt in attempts:
        bench.expect((await bench.end_of(attempt)).state, "lost")
    bench.expect([pid for pid in bench.lines("journal") if is_alive(int(pid))], [])
    bench.expect((await bench.run(argv=["true"])).state, "success")


@scenario(36, "kill_worker_process")
async def killed_worker_process_costs_nothing(bench: Bench) -> None:
    """When what takes messages is killed, tasks that run go on and end once; what comes after it runs, too."""
    shell = "echo up >> $JOURNAL; sleep 2; echo end >> $JOURNAL"
    running = [await bench.start(shell=shell, env=bench.env()) for _ in range(bench.harness.slots)]
    await bench.until(lambda: len(bench.lines("journal")) == len(running), "they run")
    await bench.hooks.kill_worker_process()
    waiting = await bench.queue_many(3, shell="echo $RUNYARD_ATTEMPT_ID >> $JOURNAL.later", env=bench.env())
    await bench.launch(*waiting)
    for attempt in (*running, *waiting):
        bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(bench.lines("journal"), ["up"] * len(running) + ["end"] * len(running))
    bench.expect(sorted(bench.lines("journal.later")), sorted(waiting))


@scenario(37, "kill_node", "run_worker", "have_lease")
async def killed_node_loses_its_attempts_once(bench: Bench) -> None:
    """When a machine dies its attempts are lost when its lease is over, once each; other workers take the rest."""
    await bench.switches.have_lease(timedelta(seconds=5))
    running = [
        await bench.start(shell="echo $$ >> $JOURNAL; exec sleep 60", env=bench.env())
        for _ in range(bench.harness.slots)
    ]
    await bench.until(lambda: len(bench.lines("journal")) == len(running), "they run")
    waiting = await bench.queue_many(3, shell="echo $RUNYARD_ATTEMPT_ID >> $JOURNAL.later", env=bench.env())
    await bench.launch(*waiting)
    await bench.hooks.kill_node()
    bench.expect([pid for pid in bench.lines("journal") if is_alive(int(pid))], [])
    await bench.hooks.run_worker(["default"], 1)
    for attempt in running:
        bench.expect((await bench.end_of(attempt)).state, "lost")
    for attempt in waiting:
        bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(sorted(bench.lines("journal.later")), sorted(waiting))


@scenario(37, "kill_node", "revive_node")
async def node_that_returns_proves_what_it_lost(bench: Bench) -> None:
    """A machine that died and comes back says so at once: what it ran is lost long before its lease is over."""
    running = [
        await bench.start(shell="echo $$ >> $JOURNAL; exec sleep 60", env=bench.env())
        for _ in range(bench.harness.slots)
    ]
    await bench.until(lambda: len(bench.lines("journal")) == len(running), "they run")
    await bench.hooks.kill_node()
    await bench.hooks.revive_node()
    for attempt in running:
        bench.expect((await bench.end_of(attempt)).state, "lost")
    bench.expect((await bench.run(argv=["true"])).state, "success")


@scenario(38, "restart_scheduler")
async def scheduler_restart_adopts_what_runs(bench: Bench) -> None:
    """After a scheduler was killed its running tasks run on: not repeated, not lost, whole in log and output."""
    attempt = await bench.start(
        shell="for i in 1 2 3 4 5 6 7 8; do echo line $i; echo $i >> $JOURNAL; sleep 0.15; done; "
        "echo '\"whole\"' > $RUNYARD_OUTPUT",
        env=bench.env(),
    )
    await bench.until(lambda: bench.lines("journal"), "it runs")
    bench.reconciles = False
    await bench.restart_scheduler()
    if not bench.by_queue:
        await bench.phase(attempt, Phase.RUNNING)
    bench.reconciles = True
    row = await bench.end_of(attempt)
    bench.expect((row.state, row.output()), ("success", "whole"))
    bench.expect(bench.lines("journal"), [str(n) for n in range(1, 9)])
    bench.expect(bench.log(attempt), b"".join(b"line %d\n" % n for n in range(1, 9)))


@scenario(38, "restart_scheduler")
async def task_that_ends_without_a_scheduler_is_noted_later(bench: Bench) -> None:
    """A task that ends while no scheduler is there ends as it did, as soon as there is one."""
    shell = "echo up >> $JOURNAL; echo hi; sleep 0.3; echo 5 > $RUNYARD_OUTPUT; echo bye"
    attempt = await bench.start(shell=shell, env=bench.env())
    # The start is committed before its answer is out; without the answer nothing runs that could end.
    await bench.until(lambda: bench.lines("journal"), "user code runs")
    bench.metastore.is_down = True
    bench.reconciles = False
    await bench.restart_scheduler()
    await bench.over(attempt)
    await bench.restart_scheduler()
    await bench.over(attempt)
    bench.metastore.is_down = False
    bench.reconciles = True
    row = await bench.end_of(attempt)
    bench.expect((row.state, row.output(), bench.log(attempt)), ("success", 5, b"hi\nbye\n"))


@scenario(39, "restart_scheduler", also=(3,))
async def scheduler_killed_between_commit_and_launch(bench: Bench) -> None:
    """An attempt that was queued and never launched is launched by the next scheduler."""
    await bench.run(argv=["true"])
    bench.reconciles = False
    attempt = await bench.queue(shell="echo once >> $JOURNAL", env=bench.env())
    await bench.restart_scheduler()
    await bench.phase(attempt, Phase.GONE, Phase.UNKNOWN)
    bench.reconciles = True
    bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(bench.lines("journal"), ["once"])


@scenario(39, "restart_scheduler")
async def scheduler_killed_between_commit_and_answer(bench: Bench) -> None:
    """A start that was committed by a scheduler that died before it answered is answered by the next one."""
    bench.metastore.lose_answers["start"] = 1
    attempt = await bench.queue(shell="echo once >> $JOURNAL", env=bench.env())
    await bench.launch(attempt)
    await bench.until(lambda: bench.row(attempt).state != "queued", "the start is committed")
    await bench.restart_scheduler()
    bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(bench.lines("journal"), ["once"])


@scenario(39, "drop_connection", "backlog")
async def task_lost_on_the_way_is_launched_again(bench: Bench) -> None:
    """A task that was started with another one's finish and never arrived is found by observing, and runs once."""
    bench.reconciles = False
    first = await bench.queue(argv=["true"])
    second = await bench.queue(shell="echo once >> $JOURNAL", env=bench.env())
    bench.metastore.backlog = [second]
    bench.metastore.lose_answers["finish"] = 1
    await bench.launch(first)
    await bench.until(lambda: bench.row(second).state == "running", "the second is committed as running")
    seen = await bench.phase(second, Phase.GONE)
    bench.expect(seen.boot_id, bench.row(second).boot_id)
    bench.reconciles = True
    bench.expect((await bench.end_of(second)).state, "success")
    bench.expect(bench.lines("journal"), ["once"])


@scenario(45)
async def observe_is_truthful(bench: Bench) -> None:
    """Pending, running, exited and gone are said when they are so."""
    bench.only(not bench.by_queue, "its supervisors are known to the metastore, not to the executor")
    bench.reconciles = False
    attempt = await bench.queue(
        shell="echo up >> $JOURNAL; while ! test -e $JOURNAL.go; do sleep 0.02; done", env=bench.env()
    )
    await bench.phase(attempt, Phase.GONE)
    bench.metastore.is_down = True
    await bench.launch(attempt)
    bench.expect((await bench.observe(attempt)).phase, Phase.PENDING)
    bench.metastore.is_down = False
    await bench.phase(attempt, Phase.RUNNING)
    await bench.until(lambda: bench.lines("journal"), "it runs")
    bench.expect((await bench.observe(attempt)).phase, Phase.RUNNING)
    bench.metastore.is_down = True
    bench.file("journal.go").touch()
    await bench.phase(attempt, Phase.EXITED)
    bench.metastore.is_down = False
    await bench.end_of(attempt)
    await bench.phase(attempt, Phase.GONE)


@scenario(46, "drop_connection")
async def lost_messages_are_healed_by_reconciling(bench: Bench) -> None:
    """With every report lost, and the connection breaking again and again, every attempt still ends once."""
    attempts = await bench.queue_many(30, shell="echo $RUNYARD_ATTEMPT_ID >> $JOURNAL", env=bench.env())
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        await bench.reconcile()
        await bench.hooks.drop_connection()
    for attempt in attempts:
        bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(sorted(bench.lines("journal")), sorted(attempts))
