"""What is wrong with the world at the moment: what is away, what fails how often; and how often it really did."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from tests.simulation.chance import Chance


class Weather:
    """Asked by every part of the world before it does what can go wrong."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._dice: dict[str, random.Random] = {}
        self._odds: dict[str, list[float]] = {}
        self._down: Counter[str] = Counter()
        #: How often each fault has struck: a campaign in which one never did proves nothing about it.
        self.counts: Counter[str] = Counter()

    def begin(self, name: str, odds: float) -> None:
        """Have *name* strike with the probability *odds*, until :meth:`end`; several add up to the worst of them."""
        self._odds.setdefault(name, []).append(odds)

    def end(self, name: str, odds: float) -> None:
        self._odds[name].remove(odds)
        if not self._odds[name]:
            del self._odds[name]

    def strikes(self, name: str) -> bool:
        """Whether *name* happens here and now."""
        odds = self._odds.get(name)
        if odds is None:
            return False
        dice = self._dice.get(name)
        if dice is None:
            dice = self._dice[name] = self._chance.stream(f"weather/{name}")
        if dice.random() >= max(odds):
            return False
        self.counts[name] += 1
        return True

    def count(self, name: str) -> None:
        """Note that a fault had its effect."""
        self.counts[name] += 1

    def take_down(self, name: str) -> None:
        self._down[name] += 1

    def bring_up(self, name: str) -> None:
        self._down[name] -= 1

    def is_down(self, name: str) -> bool:
        return self._down[name] > 0
