"""The few faults that a failing seed needs: delta debugging over its list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.scenario import run_seed

if TYPE_CHECKING:
    from tests.simulation.scenario import Result, StoreKind

#: How many runs it may take.
_MOST = 60


def shrink(result: Result, store: StoreKind, *, most: int = _MOST) -> list[int]:
    """Return the numbers of the faults that are enough for one of the things that are wrong with *result*."""
    wanted = result.names
    left = list(range(len(result.faults)))
    runs = 0

    def fails(numbers: list[int]) -> bool:
        nonlocal runs
        runs += 1
        again = run_seed(result.seed, store, faults=[result.faults[number] for number in numbers])
        return bool(again.names & wanted)

    if fails([]):
        return []
    parts = 2
    while len(left) > 1 and runs < most:
        size = max(1, len(left) // parts)
        pieces = [left[at : at + size] for at in range(0, len(left), size)]
        for piece in pieces:
            rest = [number for number in left if number not in piece]
            if runs < most and rest and fails(rest):
                left, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(parts * 2, len(left))
    return left
