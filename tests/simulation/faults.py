"""Everything that goes wrong, planned ahead: a list of faults that a seed gives, and that can be made shorter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from tests.simulation.chance import Chance
    from tests.simulation.world import Size

#: Between these moments faults strike; afterwards everything is put right.
FIRST: Final = 4.0
LAST: Final = 90.0
_MOST: Final = 40

#: What fails now and then while a window is open, and how often at the worst.
_WEATHER: Final = {
    "db.error": 0.2,
    "db.statement": 0.03,
    "db.lost_reply": 0.3,
    "db.crash": 0.02,
    "db.stall": 0.02,
    "db.slow": 0.3,
    "db.skip_locked": 0.5,
    "hint.lost": 1.0,
    "http.lost_request": 0.3,
    "http.lost_answer": 0.4,
    "http.slow": 0.3,
    "broker.lost": 0.5,
    "broker.twice": 0.6,
    "broker.late": 0.5,
    "broker.disorder": 0.8,
    "broker.ack_lost": 0.5,
    "broker.slow": 0.3,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One of them: what, when, for how long, and to whom."""

    kind: str
    at: float
    lasts: float = 0.0
    target: str = ""
    amount: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.at:7.2f} s  {self.kind:18}"]
        if self.target:
            parts.append(self.target)
        if self.amount:
            parts.append(f"x {self.amount:g}")
        if self.lasts:
            parts.append(f"for {self.lasts:.2f} s")
        return " ".join(parts)


def plan(chance: Chance, size: Size, lease: float) -> list[Fault]:
    """Return the faults of a seed, in their order."""
    dice = chance.stream("faults")
    names = {
        "scheduler": [f"s{n}" for n in range(1, size.schedulers + 1)],
        "api": [f"a{n}" for n in range(1, size.apis + 1)],
        "worker": [f"w{n}" for n in range(1, size.workers + 1)],
    }
    # A seed strikes everybody, or one or two of each; what needs the same victim twice is found sooner.
    for role, hosts in names.items():
        names[role] = sorted(dice.sample(hosts, min(len(hosts), dice.choice((1, 2, len(hosts))))))
    number = dice.choice((0, 4, 8, 14, 20, 28, _MOST))
    kinds = sorted(_PLANNERS)
    # Some kinds often and others not at all: the same for what needs several of one kind.
    liked = dice.sample(kinds, dice.choice((1, 2, 4, 8, len(kinds))))
    found = [_PLANNERS[dice.choice(liked)](dice, names, lease) for _ in range(number)]
    if dice.random() < 0.3:
        found += [_climate(dice) for _ in range(dice.randint(1, 3))]
    # What was thought of later has a stream of its own: half of the seeds are what they were.
    dice = chance.stream("faults/further")
    if dice.random() < 0.5:
        further = dice.sample(sorted(_FURTHER), dice.choice((1, 2, len(_FURTHER))))
        found += [_FURTHER[dice.choice(further)](dice, names, lease) for _ in range(dice.choice((1, 3, 8)))]
    return sorted(found, key=lambda fault: fault.at)


def _climate(dice: random.Random) -> Fault:
    """Return a weather that lasts, and that is as bad as it gets."""
    kind = dice.choice(sorted(_WEATHER))
    return Fault("weather", FIRST, LAST - FIRST, kind, _WEATHER[kind])


def _when(dice: random.Random) -> float:
    return round(dice.uniform(FIRST, LAST), 3)


def _holder(dice: random.Random, names: dict[str, list[str]]) -> str:
    return dice.choice([*names["scheduler"], *names["worker"], *names["worker"]])


def _anyone(dice: random.Random, names: dict[str, list[str]]) -> str:
    return dice.choice([*names["scheduler"], *names["worker"], *names["api"]])


def _freezing(dice: random.Random, lease: float) -> float:
    return round(lease * dice.choice((0.1, 0.3, 0.8, 1.2, 2.0, 4.0)) * (0.8 + 0.4 * dice.random()), 3)


def _outage(dice: random.Random) -> float:
    return round(dice.choice((0.5, 3.0, 10.0, 30.0)) * (0.5 + dice.random()), 3)


def _clock_jump(dice: random.Random) -> float:
    return dice.choice((-1, 1)) * dice.choice((0.5, 5.0, 60.0, 3600.0, 90000.0))


def _weather_fault(dice: random.Random, _names: dict[str, list[str]], _lease: float) -> Fault:
    kind = dice.choice(sorted(_WEATHER))
    amount = round(_WEATHER[kind] * dice.choice((0.2, 0.5, 1.0)), 3)
    return Fault("weather", _when(dice), round(dice.uniform(5, 50), 3), kind, amount)


_PLANNERS: Final[dict[str, Callable[[random.Random, dict[str, list[str]], float], Fault]]] = {
    # amount: how many steps it still takes; lasts: how long until it is started again.
    "crash": lambda d, n, _: Fault("crash", _when(d), _outage(d), _anyone(d, n), d.randint(1, 40)),
    "agent": lambda d, n, _: Fault("agent", _when(d), 0, _holder(d, n), d.randint(1, 30)),
    "zygote": lambda d, n, _: Fault("zygote", _when(d), 0, _holder(d, n)),
    "stop": lambda d, n, _: Fault("stop", _when(d), _outage(d), d.choice(n["scheduler"]), d.choice((0, 1, 5))),
    "freeze": lambda d, n, lease: Fault("freeze", _when(d), _freezing(d, lease), _anyone(d, n)),
    "freeze.agent": lambda d, n, lease: Fault("freeze.agent", _when(d), _freezing(d, lease), _holder(d, n)),
    "freeze.service": lambda d, n, lease: Fault("freeze.service", _when(d), _freezing(d, lease), _anyone(d, n)),
    "clock": lambda d, n, _: Fault("clock", _when(d), 0, _anyone(d, n), _clock_jump(d)),
    "link": lambda d, n, _: Fault("link", _when(d), 0, _holder(d, n)),
    "partition": lambda d, n, lease: Fault("partition", _when(d), _freezing(d, lease), d.choice(n["worker"])),
    "partition.long": lambda d, n, lease: Fault(
        "partition", _when(d), round(lease * d.uniform(1, 4), 3), d.choice(n["worker"])
    ),
    "disk": lambda d, n, _: Fault("disk", _when(d), _outage(d), d.choice(n["worker"])),
    "clone": lambda d, n, lease: Fault("clone", _when(d), round(lease * d.uniform(0.5, 3), 3), d.choice(n["worker"])),
    "gone": lambda d, n, _: Fault("gone", _when(d), 0, d.choice(n["worker"])),
    "database": lambda d, _n, _: Fault("database", _when(d), _outage(d)),
    "database.restart": lambda d, _n, _: Fault("database.restart", _when(d)),
    "api": lambda d, _n, _: Fault("api", _when(d), _outage(d) + d.choice((0, 20))),
    "broker": lambda d, _n, _: Fault("broker", _when(d), _outage(d)),
    "broker.restart": lambda d, _n, _: Fault("broker.restart", _when(d)),
    "broker.flush": lambda d, _n, _: Fault("broker.flush", _when(d)),
    "weather": _weather_fault,
    "weather.more": _weather_fault,
}
_FURTHER: Final[dict[str, Callable[[random.Random, dict[str, list[str]], float], Fault]]] = {
    # One process cannot reach the database, or the broker; all others can.
    "database.cut": lambda d, n, _: Fault("database.cut", _when(d), _outage(d), d.choice([*n["scheduler"], *n["api"]])),
    "broker.cut": lambda d, n, lease: Fault("broker.cut", _when(d), round(lease * d.uniform(0.2, 4), 3), _holder(d, n)),
    # SIGTERM; amount: how long what runs may go on, and an API may finish its answers.
    "stop.worker": lambda d, n, _: Fault(
        "stop.worker", _when(d), _outage(d), d.choice(n["worker"]), d.choice((0, 1, 20))
    ),
    "stop.api": lambda d, n, _: Fault("stop.api", _when(d), _outage(d), d.choice(n["api"]), d.choice((0, 1, 5))),
    "stop.agent": lambda d, n, _: Fault("stop.agent", _when(d), 0, _holder(d, n)),
    "clock.stands": lambda d, n, lease: Fault("clock.stands", _when(d), _freezing(d, lease), _anyone(d, n)),
    "disk.broken": lambda d, n, _: Fault("disk.broken", _when(d), _outage(d), _holder(d, n)),
    "freeze.long": lambda d, n, lease: Fault("freeze", _when(d), round(lease * d.uniform(5, 7), 3), _anyone(d, n)),
    "database.crawls": lambda d, _n, _: Fault("weather", _when(d), _outage(d), "db.crawls", d.choice((0.05, 0.3))),
}


def overlap(faults: Sequence[Fault], lease: float) -> float:
    """Return for how long an attempt may go on beside its successor, all faults considered.

    A host that stood still goes on for a moment with what it had; the original of a copied worker hears with its next
    heartbeat that it is not the one, and that waits while it stands still.
    """
    frozen = [
        fault for fault in faults if fault.kind in ("freeze", "freeze.agent") and not fault.target.startswith("a")
    ]
    cloned = [
        lease + 2 + sum(other.lasts for other in frozen if other.target == fault.target)
        for fault in faults
        if fault.kind == "clone"
    ]
    return max([*(fault.lasts for fault in frozen), *cloned], default=0.0)
