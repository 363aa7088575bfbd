"""What is outside of a service, and survives it: the clients' log, the tasks' journal, what supervisors remember.

It lies in a file, so that another process can go on with it.
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from tests.world import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Line = dict[str, Any]

_WAIT: Final = timedelta(seconds=1)


class Outside:
    """A memory that is written before anything else happens."""

    def __init__(self, path: Path) -> None:
        texts = path.read_text().splitlines() if path.exists() else []
        self._all: list[Line] = [json.loads(text) for text in texts]
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def close(self) -> None:
        os.close(self._file)

    @property
    def lines(self) -> list[Line]:
        """The two witnesses: the clients' log and the journal."""
        return [line for line in self._all if line["type"] in ("call", "task")]

    @property
    def waits(self) -> int:
        """How often it was waited: what a clock that is set anew has missed."""
        return sum(line["type"] == "wait" for line in self._all)

    def clock(self) -> FakeClock:
        """Return the clock of one more process: it has gone on."""
        clock = FakeClock()
        clock.move(self.waits * _WAIT)
        return clock

    async def wait(self, clock: FakeClock) -> None:
        """Let some time pass."""
        self._add(type="wait")
        clock.move(_WAIT)

    def note(self, what: str, value: str) -> None:
        if not self.noted(what, value):
            self._add(type="note", what=what, value=value)

    def noted(self, what: str, value: str) -> bool:
        return any(
            line["type"] == "note" and (line["what"], line["value"]) == (what, value)
            for line in self._all
        )  # fmt: skip

    def begun(self, attempt_id: str) -> bool:
        """Whether the user's code of an attempt has started."""
        return any(line["type"] == "task" and line["attempt_id"] == attempt_id for line in self._all)

    def wrote(self, what: str, attempt_id: str, labels: Mapping[str, str], **more: str) -> None:
        """Write a line into the journal, as the user's code."""
        line: Line = {"what": what, "attempt_id": attempt_id, "fence": int(labels["try_number"]), "map_index": -1}
        line |= {name: labels[name] for name in ("dag_id", "run_id", "task_id")}
        self._add(type="task", t=len(self._all), **line, **more)

    def answered(self, key: str) -> bool:
        return any(line["type"] == "call" and line["key"] == key and line["status"] for line in self._all)

    def call(self, op: str, dag_id: str, run_id: str | None, key: str, status: int | None, answer: Any) -> None:
        """Write a line into the clients' log."""
        line: Line = {"op": op, "dag_id": dag_id, "run_id": run_id, "key": key, "status": status, "answer": answer}
        self._add(type="call", t0=len(self._all), t1=len(self._all), **line)

    def _add(self, **line: Any) -> None:
        self._all.append(line)
        os.write(self._file, (json.dumps(line) + "\n").encode())
