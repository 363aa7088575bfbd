"""The bench: a harness, a metastore, and what a scenario does with them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, cast

from executors.base import Accepted, Phase, Rejected
from executors.conformance.reference import Reference
from executors.conformance.world import RealClock, RealEntropy, command, environment, is_alive, marked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import timedelta
    from pathlib import Path

    from dag.ids import AttemptId
    from dag.world import Clock, Entropy
    from executors.base import Door, Executor, LaunchResult, Observation
    from executors.conformance.harness import Harness, Hooks
    from executors.conformance.metastore import Metastore, Row, Switches
    from worker.protocol import StopReason, TaskBody

_BODY: Final[dict[str, Any]] = {
    "dag_id": "kit",
    "run_id": "manual",
    "task_id": "task",
    "map_index": -1,
    "try_number": 1,
    "logical_date": "2026-01-02T03:04:05Z",
    "env": {},
    "cwd": None,
    "timeout": None,
    "kill_grace": 2.0,
}
_TICK: Final = 0.1
#: How long anything may take that is promised without a time: what is late on a busy machine is not broken.
_PATIENCE: Final = 60.0
#: How many ticks pass between two looks for secrets in the processes of the harness.
_LOOKS: Final = 5


class Broken(AssertionError):
    """A guarantee does not hold."""


class NotApplicable(Exception):
    """What a scenario is about does not exist for this executor."""


class Bench:
    """What a scenario works with."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        #: The same harness; a scenario uses what it said it needs.
        self.hooks = cast("Hooks", harness)
        self.metastore: Metastore = metastore_of(harness)
        #: The same metastore, likewise.
        self.switches = cast("Switches", self.metastore)
        self.context = _Context(self.metastore)
        self.executor: Executor
        #: Whether a scheduler looks after placements.
        self.reconciles = True
        #: For how many seconds this process did not run when it wanted to: what a busy machine does to clocks.
        self.longest_stall = 0.0
        self._reconciler: asyncio.Task[None] | None = None
        self._exposed: set[str] = set()

    async def open(self) -> None:
        await self.metastore.open()
        self.executor = await self.harness.open(self.context)
        await self.metastore.serve(self.executor)
        self._reconciler = asyncio.get_running_loop().create_task(self._keep_reconciling())

    async def close(self) -> None:
        if self._reconciler is not None:
            self._reconciler.cancel()
            await asyncio.wait([self._reconciler])
        try:
            await self.harness.close()
        finally:
            await self.metastore.close()

    async def settle(self) -> None:
        """Check what holds at the end of every scenario: one end each, and nothing left of what ended."""
        for row in self.metastore.rows.values():
            if row.history not in (["queued", "running", row.state], ["queued", row.state], ["queued"]):
                raise Broken(f"an attempt went {' → '.join(row.history)}")
        await self.until(lambda: not self.harness.leftovers(), self._what_is_left)
        for row in self.metastore.rows.values():
            if row.finish is not None and len(self.log(row.attempt_id)) != row.finish["log_size"]:
                raise Broken(f"a log of {len(self.log(row.attempt_id))} bytes, said to be {row.finish['log_size']}")
        await self.metastore.check()
        self._look_for_secrets()
        secrets = [secret.encode() for secret in self.metastore.secrets()]
        for row in self.metastore.rows.values():
            log = self.log(row.attempt_id) if secrets else b""
            if any(secret in log for secret in secrets):
                self._exposed.add(f"the log of {row.attempt_id}")
        if self._exposed:
            raise Broken(f"a secret is in {', '.join(sorted(self._exposed))}")

    def _what_is_left(self) -> str:
        return f"nothing is left of attempts that ended (left: {', '.join(self.harness.leftovers())})"

    # What a scenario does

    async def queue(self, queue: str = "default", /, **body: Any) -> AttemptId:
        """Have an attempt in the metastore that nobody was told of; a ``command`` unless *body* says otherwise."""
        kind = "python" if "source" in body or "call" in body else "command"
        return await self.metastore.queue(cast("TaskBody", {**_BODY, "kind": kind, **body}), queue=queue)

    async def queue_many(self, count: int, **body: Any) -> list[AttemptId]:
        """Have *count* attempts of the same kind that nobody was told of."""
        return [await self.queue(**body) for _ in range(count)]

    async def offer(self, *attempts: AttemptId) -> Sequence[LaunchResult]:
        """Launch attempts once, whatever comes of it."""
        return await self.executor.launch([self.metastore.launch(attempt_id) for attempt_id in attempts])

    async def launch(self, *attempts: AttemptId) -> None:
        """Launch attempts until they are accepted."""
        waiting = list(attempts)
        async with asyncio.timeout(_PATIENCE):
            while waiting:
                results = await self.offer(*waiting)
                for result in results:
                    if isinstance(result, Rejected):
                        raise Broken(f"rejected: {result.detail}")
                waiting = [result.attempt_id for result in results if not isinstance(result, Accepted)]
                if waiting:
                    await asyncio.sleep(_TICK / 4)

    async def start(self, **body: Any) -> AttemptId:
        """Have an attempt that is running."""
        attempt_id = await self.queue(**body)
        await self.launch(attempt_id)
        await self.until(lambda: self.row(attempt_id).state != "queued", "it starts")
        return attempt_id

    async def run(self, **body: Any) -> Row:
        """Run an attempt to its end."""
        return await self.end_of(await self.start(**body))

    async def end_of(self, attempt_id: AttemptId, within: float = _PATIENCE) -> Row:
        """Wait for the end of an attempt."""
        row = self.row(attempt_id)
        await self.until(lambda: row.is_over, lambda: f"{attempt_id} ends (it is {row.state})", within=within)
        return row

    async def cancel(self, attempt_id: AttemptId, reason: StopReason = "user") -> None:
        """Cancel an attempt in the metastore, then tell the executor."""
        await self.metastore.cancel(attempt_id, reason)
        await self.executor.cancel([attempt_id], reason=reason)

    async def restart_scheduler(self) -> None:
        """Kill the scheduler's side without a word; go on with the next one."""
        await self.take(self.hooks.restart_scheduler(self.context))

    async def take(self, opening: Awaitable[Executor]) -> None:
        """Go on with another executor."""
        self.executor = await opening
        await self.metastore.serve(self.executor)

    @property
    def by_queue(self) -> bool:
        """Whether workers that are no part of the executor take its attempts."""
        return getattr(self.executor, "by_queue", False)

    def only(self, truth: object, otherwise: str) -> None:
        """End a scenario that is not about this executor, and say why."""
        if not truth:
            raise NotApplicable(otherwise)

    async def drain(self, within: timedelta) -> None:
        """Have what runs tasks stop in good order: the executor itself, or the workers that take from its queues."""
        if self.by_queue:
            self.only(getattr(self.harness, "drain_workers", None), "there is no drain_workers")
            await self.hooks.drain_workers(within.total_seconds())
        else:
            await self.executor.stop(drain=within)

    async def observe(self, attempt_id: AttemptId) -> Observation:
        return (await self.executor.observe([attempt_id]))[0]

    async def phase(self, attempt_id: AttemptId, *phases: Phase, within: float = _PATIENCE) -> Observation:
        """Wait until an attempt is observed in one of *phases*; only where the executor can tell them apart."""
        end = time.monotonic() + within
        while (seen := await self.observe(attempt_id)).phase not in phases:
            if time.monotonic() > end:
                raise Broken(f"not within {within:g} s: {' or '.join(phases)}; it is {seen.phase}")
            await asyncio.sleep(_TICK / 4)
        return seen

    async def over(self, attempt_id: AttemptId) -> None:
        """Wait until the user's code of a running attempt has ended, whether or not anybody could note it."""
        marker = f"RUNYARD_ATTEMPT_ID={attempt_id}"
        seen = False
        patience = time.monotonic() + 1
        while (phase := (await self.observe(attempt_id)).phase) is not Phase.EXITED:
            there = phase is Phase.RUNNING or bool(marked(marker))
            # Its processes say it.  Where none was seen it ended before the first look, or was only just started.
            if not there and (seen or time.monotonic() > patience):
                break
            seen = seen or there
            await asyncio.sleep(_TICK / 4)

    async def forgotten(self, attempt_id: AttemptId, within: float = _PATIENCE) -> None:
        """Wait until the medium has nothing of an attempt any more."""
        if self.by_queue:
            await self.until(lambda: not self.harness.leftovers(), self._what_is_left, within=within)
            await self.phase(attempt_id, Phase.GONE, Phase.UNKNOWN, within=within)
        else:
            await self.phase(attempt_id, Phase.GONE, within=within)

    # What a scenario looks at

    def expect(self, found: object, wanted: object) -> None:
        """Compare, or say both."""
        if found != wanted:
            raise Broken(f"found {found!r}, wanted {wanted!r}")

    def check(self, truth: object, what: str) -> None:
        """Say what should have been where *truth* is not."""
        if not truth:
            raise Broken(what)

    def env(self, name: str = "journal") -> dict[str, str]:
        """Return variables that tell a task where ``$JOURNAL`` is."""
        return {"JOURNAL": str(self.file(name))}

    def row(self, attempt_id: AttemptId) -> Row:
        return self.metastore.rows[attempt_id]

    def log(self, attempt_id: AttemptId) -> bytes:
        return self.harness.log(attempt_id)

    def file(self, name: str) -> Path:
        """Return a file that tasks can write to."""
        return self.harness.scratch / name

    def lines(self, name: str) -> list[str]:
        """Return what tasks wrote into a file of :meth:`file`, as far as the lines are whole."""
        try:
            text = self.file(name).read_text()
        except FileNotFoundError:
            return []
        return text.split("\n")[:-1]

    async def until(
        self, condition: Callable[[], object], what: str | Callable[[], str], within: float = _PATIENCE
    ) -> None:
        """Wait for a condition, or say what did not happen."""
        end = time.monotonic() + within
        while not condition():
            if time.monotonic() > end:
                raise Broken(f"not within {within:g} s: {what if isinstance(what, str) else what()}")
            await asyncio.sleep(0.01)

    # The scheduler

    async def _keep_reconciling(self) -> None:
        ticks = 0
        while True:
            slept_at = time.monotonic()
            await asyncio.sleep(_TICK)
            self.longest_stall = max(self.longest_stall, time.monotonic() - slept_at - _TICK)
            if self.reconciles:
                await self.reconcile()
            ticks += 1
            if ticks % _LOOKS == 0:
                self._look_for_secrets()

    async def reconcile(self) -> None:
        """Be the scheduler for a moment."""
        await self.metastore.reconcile()

    def _look_for_secrets(self) -> None:
        """Look at every process of the harness while it is there: an argument is gone with its process."""
        processes = getattr(self.harness, "processes", None)
        secrets = [secret.encode() for secret in self.metastore.secrets()]
        if processes is None or not secrets:
            return
        for pid in processes():
            argv, environ = command(pid), b"\0".join(environment(pid))
            if any(secret in argv for secret in secrets):
                self._exposed.add(f"the arguments of process {pid} ({argv.partition(bytes(1))[0].decode()})")
            if b"RUNYARD_ATTEMPT_ID=" in environ and any(secret in environ for secret in secrets):
                self._exposed.add(f"the environment of task process {pid}")


def metastore_of(harness: Harness) -> Metastore:
    """Return the metastore that a harness brings, or the reference."""
    own: Metastore | None = getattr(harness, "metastore", None)
    return Reference(RealClock(), RealEntropy()) if own is None else own


class _Context:
    """What the executor under test gets; no report is looked at."""

    def __init__(self, metastore: Metastore) -> None:
        self.clock: Clock = metastore.clock
        self.entropy: Entropy = metastore.entropy
        self.door: Door = metastore.door

    def report(self, observation: Observation) -> None:
        """Lose it: losing every report costs only latency."""

    def wake(self) -> None:
        """Lose it too; the bench reconciles all the time."""


__all__ = ["Bench", "Broken", "NotApplicable", "is_alive", "metastore_of"]
