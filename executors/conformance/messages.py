"""Scenarios: a message is only an offer; forged, lost, doubled or late, it never does more than the metastore says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dag.ids import new_id
from executors.conformance.scenario import scenario

if TYPE_CHECKING:
    from dag.ids import AttemptId
    from executors.conformance.bench import Bench

_ONCE = "echo $RUNYARD_ATTEMPT_ID >> $JOURNAL"


async def _fill(bench: Bench) -> list[AttemptId]:
    """Have every slot taken, until ``go`` is there."""
    attempts = await bench.queue_many(
        bench.harness.slots,
        shell=f"{_ONCE}; while ! test -e $GO; do sleep 0.02; done",
        env={**bench.env(), "GO": str(bench.file("go"))},
    )
    await bench.launch(*attempts)
    await bench.until(lambda: len(bench.lines("journal")) == len(attempts), "all slots are taken")
    return attempts


@scenario(19, "deliver")
async def forged_and_replayed_tickets_start_nothing(bench: Bench) -> None:
    """A message with a wrong, foreign or missing ticket starts nothing, nor does one of an attempt that ended."""
    bench.reconciles = False
    victim = await bench.queue(shell=_ONCE, env=bench.env())
    other = await bench.queue(shell=_ONCE, env=bench.env())
    foreign = bench.metastore.launch(other).ticket
    for ticket in ("rt1." + "A" * 43, foreign, foreign[:-1], "x", "rt1." + "é" * 43):
        await bench.hooks.deliver(victim, ticket)
    await bench.hooks.deliver(new_id(bench.metastore.clock, bench.metastore.entropy), foreign)
    await bench.launch(other)
    await bench.end_of(other)
    for _ in range(3):
        await bench.run(argv=["true"])  # what was delivered before it has been looked at
    bench.expect((bench.row(victim).state, bench.lines("journal")), ("queued", [other]))
    await bench.hooks.deliver(other, foreign)
    await bench.launch(victim)
    bench.expect((await bench.end_of(victim)).state, "success")
    bench.expect(bench.lines("journal"), [other, victim])


@scenario(19, "deliver_garbage")
async def garbage_ends_no_worker(bench: Bench) -> None:
    """Messages that are truncated, of another version or nothing at all are put aside, and the next one runs."""
    for _ in range(3):
        await bench.hooks.deliver_garbage()
        row = await bench.run(shell=_ONCE, env=bench.env())
        bench.expect(row.state, "success")
    bench.expect(len(bench.lines("journal")), 3)


@scenario(40, "drop_delivery")
async def lost_message_is_sent_again(bench: Bench) -> None:
    """A message that the medium lost while it waited costs only time: the attempt is launched again, and runs once."""
    running = await _fill(bench)
    bench.reconciles = False
    attempt = await bench.queue(shell=_ONCE, env=bench.env())
    await bench.launch(attempt)
    await bench.hooks.drop_delivery(attempt)
    bench.file("go").touch()
    for one in running:
        await bench.end_of(one)
    bench.reconciles = True
    bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(sorted(bench.lines("journal")), sorted([*running, attempt]))


@scenario(40, "flush_infra")
async def flushed_medium_costs_only_latency(bench: Bench) -> None:
    """When the medium loses all that it has under load, everything still runs, each once, and nothing twice."""
    running = await _fill(bench)
    waiting = await bench.queue_many(20, shell=_ONCE, env=bench.env())
    await bench.launch(*waiting[:10])
    await bench.hooks.flush_infra()
    await bench.launch(*waiting[10:])
    bench.file("go").touch()
    for attempt in (*running, *waiting):
        bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(sorted(bench.lines("journal")), sorted([*running, *waiting]))


@scenario(41, "restart_infra")
async def medium_that_dies_and_returns_runs_nothing_twice(bench: Bench) -> None:
    """When the medium is killed in mid-run and comes back, what runs goes on, what waits runs, nothing runs twice."""
    running = await _fill(bench)
    waiting = await bench.queue_many(6, shell=_ONCE, env=bench.env())
    await bench.launch(*waiting[:3])
    await bench.hooks.restart_infra()
    for attempt in waiting[3:]:
        await bench.offer(attempt)  # it may be deferred: then it is launched again
    bench.file("go").touch()
    for attempt in (*running, *waiting):
        bench.expect((await bench.end_of(attempt)).state, "success")
    bench.expect(sorted(bench.lines("journal")), sorted([*running, *waiting]))
