"""Looking for planted bugs with fresh seeds: how many each of them takes."""

from __future__ import annotations

import multiprocessing
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from tests.simulation.bugs import BUGS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def find(name: str, start: int, most: int) -> tuple[str, int | None, int, str]:
    """Return (the bug, the first seed that finds it, how many were tried, what was seen)."""
    bug = BUGS[name]
    for seed in range(start, start + most):
        result = bug.run(seed)
        if bug.is_found_by(result):
            return name, seed, seed - start + 1, ", ".join(sorted(result.names))
    return name, None, most, ""


def hunt(names: Sequence[str], *, seeds: int, jobs: int, start: int, say: Callable[[str], None]) -> int:
    """Say what finds each bug; return 1 where one was not found."""
    wanted = list(names) or list(BUGS)
    began = perf_counter()
    missed, tried = 0, 0
    one = partial(find, start=start, most=seeds)
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for name, seed, number, seen in pool.imap_unordered(one, wanted):
            missed += seed is None
            tried += number
            say(f"{name}: {f'not found by {number} seeds' if seed is None else f'{seed}, after {number} ({seen})'}")
    say(f"{len(wanted) - missed} of {len(wanted)} bugs found, {tried} seeds, {perf_counter() - began:.0f} s")
    return 1 if missed else 0
