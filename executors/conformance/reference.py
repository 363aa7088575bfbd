"""The reference metastore: compare-and-set in memory, and the smallest scheduler that can be before an executor."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dag.errors import Unavailable
from dag.ids import AttemptId, new_id
from executors.base import Launch, Phase
from executors.conformance.metastore import Row

if TYPE_CHECKING:
    from datetime import timedelta

    from dag.world import Entropy
    from executors.base import Door, Executor
    from executors.conformance.world import RealClock
    from worker.protocol import Finish, Message, Start, StopReason, TaskBody


class Reference:
    """A :class:`~executors.base.Door` and the rows behind it."""

    def __init__(self, clock: RealClock, entropy: Entropy) -> None:
        self.clock = clock
        self.entropy = entropy
        self.door: Door = self
        self.rows: dict[AttemptId, Row] = {}
        self.is_down = False
        self.lose_answers: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        self.poisoned: set[str] = set()
        self.backlog: list[AttemptId] | None = []
        self._launches: dict[AttemptId, Launch] = {}
        self._executor: Executor | None = None

    async def open(self) -> None:
        """There is nothing to open."""

    async def close(self) -> None:
        """And nothing to close."""

    async def serve(self, executor: Executor) -> None:
        self._executor = executor

    async def queue(self, body: TaskBody, *, queue: str = "default") -> AttemptId:
        attempt_id = AttemptId(new_id(self.clock, self.entropy))
        self.rows[attempt_id] = Row(attempt_id, body, history=["queued"])
        self._launches[attempt_id] = Launch(attempt_id, queue=queue)
        return attempt_id

    def launch(self, attempt_id: AttemptId) -> Launch:
        return self._launches[attempt_id]

    async def cancel(self, attempt_id: AttemptId, reason: StopReason = "user") -> None:
        row = self.rows[attempt_id]
        if row.state == "queued":
            row.become("cancelled")
        elif not row.is_over:
            row.stop_reason = reason

    async def lose(self, attempt_id: AttemptId) -> None:
        row = self.rows[attempt_id]
        if row.state == "running":
            row.become("lost")

    async def reconcile(self) -> None:
        if self._executor is None:
            return
        rows = [row for row in self.rows.values() if not row.is_over]
        observed = await self._executor.observe([row.attempt_id for row in rows])
        for row, seen in zip(rows, observed, strict=True):
            if seen.phase is Phase.GONE and row.state == "running" and seen.boot_id != row.boot_id:
                await self.lose(row.attempt_id)
            elif seen.phase is Phase.GONE:
                await self._executor.launch([self.launch(row.attempt_id)])
            elif row.stop_reason is not None and seen.phase in (Phase.PENDING, Phase.RUNNING):
                await self._executor.cancel([row.attempt_id], reason=row.stop_reason)

    async def check(self) -> None:
        """A dictionary keeps no books that could be wrong."""

    def skew(self, by: timedelta) -> None:
        """Have the service's clock be wrong, beside those of its supervisors."""
        self.clock.skew = by

    def secrets(self) -> list[str]:
        return []

    # The door

    async def start(self, message: Start, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        del key_hash
        self._open(message)
        answer = self._start(AttemptId(message["attempt_id"]), message["boot_id"], placed_on)
        self._lose(message)
        return [answer]

    async def finish(self, message: Finish, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        del key_hash
        self._open(message)
        row = self.rows.get(AttemptId(message["attempt_id"]))
        accepted = row is not None and row.state == "running" and row.boot_id == message["boot_id"]
        if row is not None and accepted:
            row.finish = message
            row.become(message["outcome"])
        answers: list[Message] = [{"type": "finished", "attempt_id": message["attempt_id"], "accepted": accepted}]
        if message["more"] and accepted and self.backlog:
            answers.append(self._start(self.backlog.pop(0), message["boot_id"], placed_on))
        self._lose(message)
        return answers

    def _start(self, attempt_id: AttemptId, boot_id: str, placed_on: str | None) -> Message:
        row = self.rows.get(attempt_id)
        if row is None:
            return {"type": "refused", "attempt_id": attempt_id, "code": "gone", "detail": "no such attempt"}
        if row.state == "running" and row.boot_id != boot_id:
            return {"type": "refused", "attempt_id": attempt_id, "code": "conflict", "detail": "somebody has it"}
        if row.is_over:
            return {"type": "refused", "attempt_id": attempt_id, "code": "gone", "detail": f"it is {row.state}"}
        if row.state == "queued":
            row.boot_id = boot_id
            row.placed_on = placed_on
            row.become("running")
        return {"type": "task", "attempt_id": attempt_id, "body": row.body}

    def _open(self, message: Start | Finish) -> None:
        if self.is_down:
            raise Unavailable("the metastore is away")
        self.heard[message["type"]] += 1
        if message["attempt_id"] in self.poisoned:
            raise ZeroDivisionError("a bug that one row brings up")

    def _lose(self, message: Start | Finish) -> None:
        if self.lose_answers[message["type"]] > 0:
            self.lose_answers[message["type"]] -= 1
            raise Unavailable("the answer was lost")
