"""What a seed is about: some of everything, or much of a little (swarm testing).

A world in which all things happen now and then seldom meets what needs several things at once: the same run cleared
while it is cancelled, a worker copied while its tasks are long.  So each seed draws what its users like to ask for,
what their tasks are like, whom the faults strike, and which of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import random

    from tests.simulation.chance import Chance

T = TypeVar("T")

_OPS: Final = (
    ("trigger",) * 8 + ("cancel", "cancel", "clear", "clear", "patch", "put", "read"),
    ("trigger",) * 6 + ("clear",) * 5 + ("patch",),
    ("trigger",) * 6 + ("cancel",) * 4 + ("clear",) * 4,
    ("trigger",) * 6 + ("put",) * 4 + ("clear",),
    ("trigger",) * 6 + ("patch",) * 3 + ("clear",) * 3,
    ("trigger",),
)
#: How the tries of a task end, letter by letter (:mod:`tests.simulation.zygote`).
_ENDS: Final = (
    ("s", "s", "s", "s", "s", "s", "f", "fs", "ffs", "hs", "d"),
    ("s",),
    ("s", "s", "s", "d", "h"),
    ("s", "f", "fs", "ffs"),
)
_TAKES: Final = (
    (0.05, 0.5, 0.5, 2.0, 2.0, 8.0, 20.0, 45.0),
    (0.05, 0.1, 0.5),
    (2.0, 8.0, 20.0),
    (20.0, 45.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is likely in a seed."""

    #: What clients ask for, how often at once after their last request, and how often about the same run.
    ops: tuple[str, ...] = _OPS[0]
    haste: float = 0.0
    insists: float = 0.0
    #: How many requests each of them makes.
    requests: int = 14
    #: Tasks: how they end, how long they take, where they run, how likely they may be tried again.
    ends: tuple[str, ...] = _ENDS[0]
    takes: tuple[float, ...] = _TAKES[0]
    executors: tuple[str, ...] = ("local", "dramatiq")
    retries: float = 0.3
    #: How likely a DAG has limits of its own, and the highest of them.
    limits: float = 0.4
    most: int = 3


def draw(chance: Chance) -> Profile:
    """Return the profile of a seed; each part of it is as often the usual one as another."""
    dice = chance.stream("profile")
    return Profile(
        ops=_usual_or(dice, _OPS),
        haste=dice.choice((0.0, 0.0, 0.4, 0.8)),
        insists=dice.choice((0.0, 0.0, 0.5, 0.8)),
        requests=dice.choice((10, 14, 14, 22)),
        ends=_usual_or(dice, _ENDS),
        takes=_usual_or(dice, _TAKES),
        executors=dice.choice((("local", "dramatiq"), ("local", "dramatiq"), ("local",), ("dramatiq",))),
        retries=dice.choice((0.3, 0.3, 1.0)),
        limits=dice.choice((0.4, 0.4, 0.0, 1.0)),
        most=dice.choice((3, 3, 1)),
    )


def _usual_or(dice: random.Random, choices: tuple[T, ...]) -> T:
    return choices[0] if dice.random() < 0.5 else dice.choice(choices)
