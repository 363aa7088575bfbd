"""Clients of the API: they put, trigger, cancel, clear and pause, repeat what was not answered, and write it down."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from tests.simulation import shapes
from tests.simulation.chance import true_time
from tests.simulation.network import NoAnswer

if TYPE_CHECKING:
    import random

    from tests.simulation.hosts import SimProcess
    from tests.simulation.profile import Profile

_TIMEOUT: Final = 10.0
_MOST_TRIES: Final = 12
#: How long whoever is in haste waits, at the most.
_HASTE: Final = 2.0


class Client:
    """One of them."""

    def __init__(
        self, process: SimProcess, name: str, dice: random.Random, dags: list[str], profile: Profile, *, size: int
    ) -> None:
        self._process = process
        self._network = process.site.network
        self._name = name
        self._dice = dice
        self._profile = profile
        self._size = size
        self._dags = dags
        self._documents: dict[str, dict[str, Any]] = {}
        self._runs: list[tuple[str, str]] = []
        #: The run that it asked about last.
        self._last: tuple[str, str] | None = None
        self._keys = 0
        self._paused: set[str] = set()
        #: The first accepted request of each kind, with its key.
        self._first: dict[str, tuple[dict[str, Any], str]] = {}

    async def run(self, until: float) -> None:
        """Make requests until the time *until*."""
        loop = self._process.loop
        requests = self._profile.requests
        for dag_id in self._dags:
            self._documents[dag_id] = shapes.document(self._dice, self._profile, size=self._size)
            await self._put(dag_id)
        for _ in range(requests):
            pause = (until - loop.time()) * self._dice.random() * 2 / requests
            if self._dice.random() < self._profile.haste:
                pause = _HASTE * self._dice.random()
            await asyncio.sleep(max(0.0, pause))
            await self._one()
            requests -= 1

    async def settle(self) -> None:
        """Unpause what is paused, so that everything accepted can end; then repeat what was answered long ago."""
        for dag_id in sorted(self._paused):
            await self._ask("patch", {"dag_id": dag_id, "paused": False}, key=self._new_key())
        for op, (body, key) in list(self._first.items()):
            await self._ask(op, body, key=key)

    async def _one(self) -> None:
        op = self._dice.choice(self._profile.ops)
        dag_id = self._dice.choice(self._dags)
        key = self._new_key() if self._dice.random() < 0.7 else None
        match op:
            case "trigger":
                await self._trigger(dag_id, key)
            case "put":
                self._documents[dag_id] = shapes.changed(
                    self._dice, self._profile, self._documents[dag_id], size=self._size
                )
                await self._put(dag_id)
            case "patch":
                pauses = dag_id not in self._paused
                self._paused ^= {dag_id}
                await self._ask("patch", {"dag_id": dag_id, "paused": pauses}, key=key or self._new_key())
            case _ if self._runs:
                if self._last is None or self._dice.random() >= self._profile.insists:
                    self._last = self._dice.choice(self._runs[-6:])
                dag_id, run_id = self._last
                body = {"dag_id": dag_id, "run_id": run_id}
                if op == "clear":
                    body |= self._how_to_clear(dag_id)
                await self._ask(op, body, key=key)
            case _:
                pass

    def _how_to_clear(self, dag_id: str) -> dict[str, Any]:
        dice = self._dice
        body: dict[str, Any] = {"only_failed": dice.random() < 0.4, "downstream": dice.random() < 0.5}
        if dice.random() < 0.3:
            tasks = sorted(self._documents[dag_id]["tasks"])  # the run may have others: then it is refused
            body["task_ids"] = sorted(dice.sample(tasks, dice.randint(1, len(tasks))))
        if dice.random() < 0.1:
            body["dry_run"] = True
        return body

    async def _put(self, dag_id: str) -> None:
        await self._ask("put", {"dag_id": dag_id, "document": self._documents[dag_id]}, key=self._new_key())

    async def _trigger(self, dag_id: str, key: str | None) -> None:
        body: dict[str, Any] = {"dag_id": dag_id}
        if self._dice.random() < 0.3:
            body["run_id"] = f"{self._name}-{self._dice.randint(1, 20)}"
        if self._dice.random() < 0.15:
            # Later, or before what others have asked for.
            off = self._dice.choice((1, 1, -1)) * round(self._dice.uniform(3, 30), 3)
            body["run_after"] = (true_time(self._process.loop) + timedelta(seconds=off)).isoformat()
        answer = await self._ask("trigger", body, key=key)
        if answer is not None:
            self._runs.append((dag_id, answer["run_id"]))

    def _new_key(self) -> str:
        self._keys += 1
        return f"{self._name}.{self._keys}"

    async def _ask(self, op: str, body: dict[str, Any], *, key: str | None) -> dict[str, Any] | None:
        """Ask, again and again where that is safe; return what was answered with success."""
        for _ in range(_MOST_TRIES):
            status, answer = await self._ask_once(op, body, key)
            if status is not None and status < 500:
                if status < 300 and key is not None and op != "read":
                    self._first.setdefault(op, (body, key))
                return answer if status < 300 else None
            if key is None and op != "read":
                return None
            await asyncio.sleep(0.2 + self._dice.random() * 3)
        return None

    async def _ask_once(
        self, op: str, body: dict[str, Any], key: str | None
    ) -> tuple[int | None, dict[str, Any] | None]:  # fmt: skip
        loop = self._process.loop
        sent_at = loop.time()
        status: int | None
        answer: dict[str, Any] | None
        try:
            status, answer = await self._network.ask(self._process, _TIMEOUT, op, self._name, key, body)
        except NoAnswer:
            status, answer = None, None
        line = {
            "type": "call",
            "client": self._name,
            "op": op,
            "dag_id": body["dag_id"],
            "run_id": body.get("run_id"),
            "key": key,
            "body": {name: value for name, value in body.items() if name not in ("dag_id", "run_id")},
            "t0": round(sent_at, 6),
            "t1": None if status is None else round(loop.time(), 6),
            "status": status,
            "answer": answer,
        }
        self._process.site.calls.append(line)
        return status, answer
