"""The catalogue of planted bugs: mistakes that were made, or are easily made, in schedulers like this one.

Each is planted alone, and the simulator has to find it: with a seed that is written down here, and with fresh ones.  A
bug that is not found says that the simulator is too weak, not that the bug is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.simulation import bugs_of_commands, bugs_of_parts, bugs_of_transactions
from tests.simulation.planting import planted
from tests.simulation.scenario import run_seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.planting import Planter
    from tests.simulation.scenario import Result, StoreKind


@dataclass(frozen=True, slots=True)
class Bug:
    """One of them."""

    name: str
    #: What somebody did wrong.
    says: str
    store: StoreKind
    plant: Callable[[Planter], None]

    @property
    def seed(self) -> int | None:
        """A seed that finds it."""
        return SEEDS.get(self.name)

    def run(self, seed: int) -> Result:
        """Simulate *seed* with the bug in the product."""
        with planted(self.plant):
            return run_seed(seed, self.store)


def _catalogue() -> dict[str, Bug]:
    found = {}
    modules: tuple[tuple[StoreKind, list[Callable[[Planter], None]]], ...] = (
        ("sqlite", bugs_of_commands.ALL),
        ("sqlite", bugs_of_transactions.ALL),
        ("memory", bugs_of_parts.ALL),
    )
    for store, plants in modules:
        for plant in plants:
            says = (plant.__doc__ or "").strip()
            found[plant.__name__] = Bug(plant.__name__, says, store, plant)
    return found


#: The seeds that find them, by name; ``python -m tests.simulation --bugs`` looks for others.
SEEDS: Final[dict[str, int]] = {}
BUGS: Final = _catalogue()
