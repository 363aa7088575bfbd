"""The blows that an installation takes under load: every kind once, in any order, and from then on by chance."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from random import Random

    from bench.postgres import Postgres
    from tests.brokers import RedisServer
    from tests.system.fleet import Fleet, Part
    from tests.system.hosts import Pauses

#: How often each kind strikes, beside the others.  ``host``: a process that runs tasks, with its agent.
_ALWAYS: Final = {
    "kill api": 6,
    "kill scheduler": 6,
    "kill agent": 5,
    "kill zygote": 4,
    "kill host": 4,
    "restart database": 2,
    "pause api": 1,
    "pause scheduler": 1,
    "pause agent": 1,
    "pause host": 1,
}
_WITH_BROKER: Final = {"kill worker": 6, "kill redis": 4, "flush redis": 2, "pause worker": 1}
#: For how long nothing may be there to be struck.
_PATIENCE: Final = 60.0


class Target(Protocol):
    """An installation with its servers."""

    fleet: Fleet
    server: Postgres
    redis: RedisServer | None


class Blows:
    """Strikes one after the other, and counts what it has struck."""

    def __init__(self, made: Target, chance: Random, pauses: Pauses) -> None:
        self._made = made
        self._chance = chance
        self._pauses = pauses
        self._weights = _ALWAYS | (_WITH_BROKER if made.redis is not None else {})
        self._due = list(self._weights)
        chance.shuffle(self._due)
        #: By kind; what has not struck is there with 0.
        self.struck: Counter[str] = Counter(dict.fromkeys(self._weights, 0))

    def strike(self) -> None:
        """Strike what is due, or what chance says; another kind where there is nothing to strike."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            first = bool(self._due)
            kind = self._due.pop(0) if first else self._chance.choices([*self._weights], [*self._weights.values()])[0]
            if self._strike(kind, spare=first):
                self.struck[kind] += 1
                return
            if first:
                self._due.append(kind)
            assert time.monotonic() < deadline, f"nothing is there to be struck: {kind}"
            time.sleep(0.05)

    def _strike(self, kind: str, *, spare: bool) -> bool:
        """Return whether there was something to strike; with *spare* that is nothing that stands still."""
        what, _, whom = kind.partition(" ")
        if whom in ("database", "redis"):
            self._strike_server(what, whom)
            return True
        fleet = self._made.fleet
        found = fleet.hosts if whom in ("agent", "zygote", "host") else fleet.parts_of(whom)
        parts = [part for part in found if not (spare and self._pauses.stands(part.name))]
        if not parts:
            return False
        part = self._chance.choice(parts)
        if what == "pause":
            return self._pause(part, whom)
        if whom == "agent":
            return part.kill_agent() > 0
        if whom == "zygote":
            return part.kill_zygote() > 0
        part.die() if whom == "host" else part.kill()
        time.sleep(self._chance.uniform(0, 0.5))
        part.spawn() if part in fleet.workers else part.start()
        return True

    def _pause(self, part: Part, whom: str) -> bool:
        """Stop all of a host, or one of its processes alone: what is below a process or an agent goes on."""
        pids = {"host": part.host, "agent": part.agents}.get(whom, lambda: [part.pid])
        return self._pauses.begin(part.name, f"pause {whom}", pids)

    def _strike_server(self, what: str, whom: str) -> None:
        redis = self._made.redis
        if whom == "database":
            self._made.server.restart()
        elif what == "flush":
            assert redis is not None
            redis.flushall()
        else:
            assert redis is not None
            redis.kill()  # in memory: all messages are gone
            time.sleep(self._chance.uniform(0, 1))
            redis.start()
