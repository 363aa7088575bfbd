"""The bench: a harness, the reference metastore, and the smallest scheduler that can be between them."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from executors.base import Accepted, Launch, Phase, Rejected
from executors.conformance.metastore import Metastore, Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from dag.ids import AttemptId
    from dag.world import Clock, Entropy
    from executors.base import Door, Executor, Observation
    from executors.conformance.harness import Harness
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


class Broken(AssertionError):
    """A guarantee does not hold."""


class Bench:
    """What a scenario works with."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.context = _Context()
        self.metastore = self.context.metastore
        self.executor: Executor
        #: Whether the small scheduler looks after placements.
        self.reconciles = True
        self._reconciler: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self.executor = await self.harness.open(self.context)
        self._reconciler = asyncio.get_running_loop().create_task(self._keep_reconciling())

    async def close(self) -> None:
        if self._reconciler is not None:
            self._reconciler.cancel()
            await asyncio.wait([self._reconciler])
        await self.harness.close()

    async def settle(self) -> None:
        """Check what holds at the end of every scenario: one end each, and nothing left of what ended."""
        for row in self.metastore.rows.values():
            if row.history not in (["queued", "running", row.state], ["queued", row.state], ["queued"]):
                raise Broken(f"an attempt went {' → '.join(row.history)}")
        await self.until(lambda: not self.harness.leftovers(), "nothing is left of attempts that ended", within=10)
        for row in self.metastore.rows.values():
            if row.finish is not None and len(self.log(row.attempt_id)) != row.finish["log_size"]:
                raise Broken(f"a log of {len(self.log(row.attempt_id))} bytes, said to be {row.finish['log_size']}")

    # What a scenario does

    def queue(self, **body: Any) -> AttemptId:
        """Have an attempt in the metastore that nobody was told of; a ``command`` unless *body* says otherwise."""
        kind = "python" if "source" in body or "call" in body else "command"
        return self.metastore.queue(cast("TaskBody", {**_BODY, "kind": kind, **body}))

    async def launch(self, *attempts: AttemptId) -> None:
        """Launch attempts until they are accepted."""
        waiting = list(attempts)
        async with asyncio.timeout(15):
            while waiting:
                results = await self.executor.launch([Launch(attempt_id) for attempt_id in waiting])
                for result in results:
                    if isinstance(result, Rejected):
                        raise Broken(f"rejected: {result.detail}")
                waiting = [result.attempt_id for result in results if not isinstance(result, Accepted)]
                if waiting:
                    await asyncio.sleep(_TICK / 4)

    async def start(self, **body: Any) -> AttemptId:
        """Have an attempt that is running."""
        attempt_id = self.queue(**body)
        await self.launch(attempt_id)
        await self.until(lambda: self.row(attempt_id).state != "queued", "it starts")
        return attempt_id

    async def run(self, **body: Any) -> Row:
        """Run an attempt to its end."""
        return await self.end_of(await self.start(**body))

    async def end_of(self, attempt_id: AttemptId, within: float = 20.0) -> Row:
        """Wait for the end of an attempt."""
        row = self.row(attempt_id)
        await self.until(lambda: row.is_over, f"{attempt_id} ends (it is {row.state})", within=within)
        return row

    async def cancel(self, attempt_id: AttemptId, reason: StopReason = "user") -> None:
        """Cancel an attempt in the metastore, then tell the executor."""
        self.metastore.cancel(attempt_id, reason)
        await self.executor.cancel([attempt_id], reason=reason)

    async def observe(self, attempt_id: AttemptId) -> Observation:
        return (await self.executor.observe([attempt_id]))[0]

    async def phase(self, attempt_id: AttemptId, *phases: Phase, within: float = 10.0) -> Observation:
        """Wait until an attempt is observed in one of *phases*."""
        async with asyncio.timeout(within):
            while (seen := await self.observe(attempt_id)).phase not in phases:  # noqa: ASYNC110  a fact, not an event
                await asyncio.sleep(_TICK / 4)
        return seen

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

    async def until(self, condition: Callable[[], object], what: str, within: float = 15.0) -> None:
        """Wait for a condition, or say what did not happen."""
        end = time.monotonic() + within
        while not condition():
            if time.monotonic() > end:
                raise Broken(f"not within {within:g} s: {what}")
            await asyncio.sleep(0.01)

    # The small scheduler

    async def _keep_reconciling(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            if self.reconciles:
                await self.reconcile()

    async def reconcile(self) -> None:
        """Launch what is not placed, give up what is proved dead, repeat what was asked."""
        rows = [row for row in self.metastore.rows.values() if not row.is_over]
        for row, seen in zip(rows, await self.executor.observe([row.attempt_id for row in rows]), strict=True):
            if seen.phase is Phase.GONE and row.state == "running" and seen.boot_id != row.boot_id:
                self.metastore.lose(row.attempt_id)
            elif seen.phase is Phase.GONE:
                await self.executor.launch([Launch(row.attempt_id)])
            elif row.stop_reason is not None and seen.phase in (Phase.PENDING, Phase.RUNNING):
                await self.executor.cancel([row.attempt_id], reason=row.stop_reason)


class _Context:
    """What the executor under test gets: real time, real chance, the reference metastore; no report is looked at."""

    def __init__(self) -> None:
        self.clock: Clock = _Clock()
        self.entropy: Entropy = _Entropy()
        self.metastore = Metastore(self.clock, self.entropy)
        self.door: Door = self.metastore

    def report(self, observation: Observation) -> None:
        """Lose it: losing every report costs only latency."""

    def wake(self) -> None:
        """Lose it too; the bench reconciles all the time."""


class _Clock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class _Entropy:
    def token(self, size: int) -> bytes:
        return os.urandom(size)

    def luck(self) -> float:
        return 0.5


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
