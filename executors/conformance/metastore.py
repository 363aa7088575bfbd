"""The reference metastore: compare-and-set in memory, and the switches that make it misbehave."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dag.errors import Unavailable
from dag.ids import AttemptId, new_id

if TYPE_CHECKING:
    from dag.world import Clock, Entropy
    from worker.protocol import Finish, Message, Start, StopReason, TaskBody

#: States that nothing leaves.
TERMINAL: Final = frozenset({"success", "failed", "timed_out", "cancelled", "drained", "lost"})


@dataclass(slots=True)
class Row:
    """One attempt as the metastore has it."""

    attempt_id: AttemptId
    body: TaskBody
    state: str = "queued"
    boot_id: str | None = None
    placed_on: str | None = None
    stop_reason: StopReason | None = None
    finish: Finish | None = None
    #: Every change of state, in order.
    history: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL

    @property
    def ending(self) -> Finish:
        """The accepted finish."""
        if self.finish is None:
            raise LookupError(f"{self.attempt_id} is {self.state}, and no supervisor has finished it")
        return self.finish

    def become(self, state: str) -> None:
        if self.is_over:
            raise AssertionError(f"{self.attempt_id}: {state} after {self.history}")
        self.state = state
        self.history.append(state)
        self.changed.set()

    def output(self) -> object:
        text = self.ending["output"]
        return None if text is None else json.loads(text)


class Metastore:
    """A :class:`~executors.base.Door` and the rows behind it."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self.rows: dict[AttemptId, Row] = {}
        #: Nothing can be reached.
        self.is_down = False
        #: How many of the next answers are lost after their effect was committed, by message type.
        self.lose_answers: Counter[str] = Counter()
        #: Attempts whose questions hit a bug of ours.
        self.poisoned: set[str] = set()
        #: Attempts to start with a finish that asks for more.
        self.backlog: list[AttemptId] = []
        #: Every message that came, in order.
        self.heard: list[Start | Finish] = []

    def queue(self, body: TaskBody) -> AttemptId:
        attempt_id = AttemptId(new_id(self._clock, self._entropy))
        self.rows[attempt_id] = Row(attempt_id, body, history=["queued"])
        return attempt_id

    def cancel(self, attempt_id: AttemptId, reason: StopReason = "user") -> None:
        """What a cancel does before anybody is told: what is queued is over, what runs is asked to stop."""
        row = self.rows[attempt_id]
        if row.state == "queued":
            row.become("cancelled")
        elif not row.is_over:
            row.stop_reason = reason

    def lose(self, attempt_id: AttemptId) -> None:
        """Conclude from a proof of death that a running attempt is lost."""
        row = self.rows[attempt_id]
        if row.state == "running":
            row.become("lost")

    async def start(self, message: Start, placed_on: str) -> list[Message]:
        self._open(message)
        answer = self._start(AttemptId(message["attempt_id"]), message["boot_id"], placed_on)
        self._lose(message)
        return [answer]

    async def finish(self, message: Finish, placed_on: str) -> list[Message]:
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

    def _start(self, attempt_id: AttemptId, boot_id: str, placed_on: str) -> Message:
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
        self.heard.append(message)
        if message["attempt_id"] in self.poisoned:
            raise ZeroDivisionError("a bug that one row brings up")

    def _lose(self, message: Start | Finish) -> None:
        if self.lose_answers[message["type"]] > 0:
            self.lose_answers[message["type"]] -= 1
            raise Unavailable("the answer was lost")
