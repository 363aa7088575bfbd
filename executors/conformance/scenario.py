"""A scenario: numbers, a name, a guarantee, the hooks it needs, and the code that checks it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields
from importlib import import_module
from typing import TYPE_CHECKING, Final

from executors.base import Traits
from executors.conformance.bench import Bench, NotApplicable, metastore_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from executors.conformance.harness import Harness

    Check = Callable[[Bench], Awaitable[None]]

_TOPICS: Final = (
    "placement",
    "queues",
    "fencing",
    "messages",
    "outcomes",
    "cancelling",
    "trees",
    "recovery",
    "outages",
    "data",
    "python",
    "kinds",
)
_TRAITS: Final = {field.name for field in fields(Traits)}
_found: list[Scenario] = []


@dataclass(frozen=True, slots=True)
class Scenario:
    """One guarantee."""

    #: The cases of the brief that it checks; the first one is its own.
    numbers: tuple[int, ...]
    name: str
    #: What is promised, as its docstring says it.
    guarantee: str
    #: Names of hooks of the harness, switches of the metastore and traits of the executor that it cannot do without.
    needs: tuple[str, ...]
    #: Seconds after which it has failed.
    limit: float
    #: Whether it takes so long that only who asks for it gets it.
    long: bool
    check: Check

    @property
    def topic(self) -> str:
        """What it is about: the name of the module it stands in."""
        return self.check.__module__.rpartition(".")[2]

    @property
    def title(self) -> str:
        return f"{self.numbers[0]:02d}_{self.name}"

    def missing(self, harness: Harness) -> list[str]:
        """Return the hooks and switches that *harness* and its metastore do not have."""
        metastore = metastore_of(harness)
        return [
            need
            for need in self.needs
            if need not in _TRAITS and getattr(harness, need, None) is None and getattr(metastore, need, None) is None
        ]

    async def run(self, harness: Harness) -> None:
        """Check the guarantee, and after it what holds for every scenario; raise AssertionError where it is broken.

        Raises :exc:`NotApplicable` where the executor itself says that it is not one for this.
        """
        bench = Bench(harness)
        try:
            async with asyncio.timeout(self.limit):
                await bench.open()
                for need in self.needs:
                    if need in _TRAITS and not getattr(bench.executor.traits, need):
                        raise NotApplicable(f"the executor is not {need}")
                await self.check(bench)
                await bench.settle()
        except TimeoutError as error:
            raise AssertionError(f"not over within its {self.limit:g} s") from error
        finally:
            await bench.close()


def scenario(
    number: int, *needs: str, also: tuple[int, ...] = (), limit: float = 300.0, long: bool = False
) -> Callable[[Check], Check]:
    """Register the decorated coroutine function as a scenario."""

    def register(check: Check) -> Check:
        name = getattr(check, "__name__", "")
        guarantee = " ".join((check.__doc__ or "").split())
        _found.append(Scenario((number, *also), name, guarantee, needs, limit, long, check))
        return check

    return register


def scenarios() -> list[Scenario]:
    """Return all scenarios, by number."""
    for topic in _TOPICS:
        import_module(f"executors.conformance.{topic}")
    return sorted(_found, key=lambda one: (one.numbers[0], one.name))
