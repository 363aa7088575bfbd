"""Seeds: the real decisions in a world where everything fails, and nothing that was promised is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.simulation import campaign
from tests.simulation.faults import Fault
from tests.simulation.scenario import run_seed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulation.scenario import StoreKind

#: Another range for every release would find more; the same one finds what a change breaks.
_FIRST = 10_000
#: Campaigns are cut into parts, for as many processes as pytest has.
_PARTS = {"memory": 10, "sqlite": 8}


def _told(found: campaign.Campaign) -> str:
    lines = [str(found)]
    for result in found.bad[:5]:
        lines.append(f"seed {result.seed}: {sorted(result.names)}")
        lines += [f"  {violation.invariant}: {violation.sentence}" for violation in result.violations[:4]]
        lines += [f"  {error}" for error in [*result.errors[:4], *result.insights[:4]]]
    lines.append("again: python -m tests.simulation --store … --start SEED --seeds 1")
    return "\n".join(lines)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all processes of this test run share."""
    mine = tmp_path_factory.getbasetemp()
    folder = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "campaigns"
    folder.mkdir(exist_ok=True)
    return folder


def _hold(store: StoreKind, part: int, seeds: int, parts: Path, wanted: tuple[str, ...]) -> None:
    """Simulate a part of a campaign; whichever part is the last looks at what the whole of it has met."""
    size = seeds // _PARTS[store]
    first = _FIRST + part * size
    found = campaign.run(range(first, first + size), store)
    assert not found.bad, _told(found)
    (parts / f"{store}-{part}.new").write_text(json.dumps(found.counts))
    (parts / f"{store}-{part}.new").rename(parts / f"{store}-{part}.json")
    counts = [Counter(json.loads(file.read_text())) for file in sorted(parts.glob(f"{store}-*.json"))]
    if len(counts) == _PARTS[store]:
        met = sum(counts, Counter())
        assert [fault for fault in wanted if not met[fault]] == [], "a fault that never struck proves nothing"


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("part", range(_PARTS["memory"]))
def test_seeds_in_memory(part: int, parts: Path, long: bool) -> None:  # noqa: FBT001  # pytest passes fixtures by name
    _hold("memory", part, 20_000 if long else 300, parts, campaign.wanted("memory"))


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("part", range(_PARTS["sqlite"]))
def test_seeds_over_sql(part: int, parts: Path, long: bool) -> None:  # noqa: FBT001  # pytest passes fixtures by name
    _hold("sqlite", part, 1_000 if long else 24, parts, campaign.wanted("sqlite") if long else campaign.COMMON)


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_the_same_seed_is_the_same_history(store: StoreKind) -> None:
    """Byte for byte: here, again, and in another interpreter that hashes its strings another way."""
    seeds = range(_FIRST, _FIRST + 2)
    ours = [run_seed(seed, store).digest for seed in seeds]
    assert [run_seed(seed, store).digest for seed in seeds] == ours
    script = (
        "import sys; from tests.simulation.scenario import run_seed\n"
        "for seed in map(int, sys.argv[2:]): print(run_seed(seed, sys.argv[1]).digest)"
    )
    for hashing in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", script, store, *map(str, seeds)],
            env=os.environ | {"PYTHONHASHSEED": hashing},
            check=True,
            capture_output=True,
            text=True,
        )
        assert told.stdout.split() == ours


def test_different_seeds_are_different_histories() -> None:
    assert len({run_seed(seed, "memory").digest for seed in range(_FIRST, _FIRST + 4)}) == 4


def test_faults_can_be_chosen() -> None:
    faults = [Fault("crash", 20.0, 5.0, "s1", 1), Fault("broker.flush", 30.0)]
    result = run_seed(_FIRST, "memory", faults=faults)
    assert result.is_good, _told(campaign.Campaign(bad=[result]))
    assert (result.counts["crash.scheduler"], result.counts["broker.flush"], result.counts["db.outage"]) == (1, 1, 0)
