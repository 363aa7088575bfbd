"""A scenario: a number, a name, a guarantee, the hooks it needs, and the code that checks it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

from executors.conformance.bench import Bench

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from executors.conformance.harness import Harness

    Check = Callable[[Bench], Awaitable[None]]

_TOPICS: Final = ("placement", "fencing", "outcomes", "cancelling", "trees", "recovery", "data", "python")
_found: list[Scenario] = []


@dataclass(frozen=True, slots=True)
class Scenario:
    """One guarantee."""

    number: int
    name: str
    #: What is promised, as its docstring says it.
    guarantee: str
    #: Names of the harness's hooks without which it cannot be checked.
    needs: tuple[str, ...]
    #: Seconds after which it has failed.
    limit: float
    check: Check

    def missing(self, harness: Harness) -> list[str]:
        """Return the hooks that *harness* does not have."""
        return [hook for hook in self.needs if getattr(harness, hook, None) is None]

    async def run(self, harness: Harness) -> None:
        """Check the guarantee, and after it what holds for every scenario; raise AssertionError where it is broken."""
        bench = Bench(harness)
        try:
            async with asyncio.timeout(self.limit):
                await bench.open()
                await self.check(bench)
                await bench.settle()
        finally:
            await bench.close()


def scenario(number: int, *needs: str, limit: float = 60.0) -> Callable[[Check], Check]:
    """Register the decorated coroutine function as a scenario."""

    def register(check: Check) -> Check:
        name = getattr(check, "__name__", "")
        _found.append(Scenario(number, name, check.__doc__ or "", needs, limit, check))
        return check

    return register


def scenarios() -> list[Scenario]:
    """Return all scenarios, by number."""
    for topic in _TOPICS:
        import_module(f"executors.conformance.{topic}")
    return sorted(_found, key=lambda one: (one.number, one.name))
