"""Planted bugs: a simulator that finds nothing proves nothing."""

from __future__ import annotations

import warnings

import pytest

from dag import outcomes
from dag.outcomes import settle
from metastore.commands import moves
from tests.simulation.bugs import BUGS, DIRECTED, FOUND, QUICK, Bug
from tests.simulation.hunt import find
from tests.simulation.planting import OutOfDate, Planter, planted
from tests.simulation.shrink import shrink

#: Where fresh seeds begin, and how many of them a bug may take.
_FRESH = 70_000
_MOST = 20
#: How many are tried after the one that is written down.
_MOST_MOVED = 250
_MOST_LONG = 500


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS.keys())
def test_its_seed_finds_it(bug: Bug) -> None:
    """The seed that is written down; or, where a change of the product has moved its schedule, one after it."""
    _, found, tried, _ = find(bug.name, bug.seed, _MOST_MOVED)
    assert found is not None, f"{bug.says} {tried} seeds did not see it."
    if found != bug.seed:
        warnings.warn(f"{bug.name}: {bug.seed} does not find it any more, {found} does", stacklevel=1)
    assert bug.run_without(found).is_good, "The seed fails without the bug: it proves nothing about it."


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS.keys())
def test_fresh_seeds_find_it(bug: Bug, long: bool) -> None:  # noqa: FBT001  # pytest passes fixtures by name
    """Seeds that nobody has chosen; a test run has the time for the bugs that take few of them."""
    if not long and bug.name not in QUICK:
        pytest.skip("rare: run with --long, or python -m tests.simulation --bugs")
    _, found, tried, _ = find(bug.name, _FRESH, _MOST_LONG if long else _MOST)
    assert found is not None, f"{bug.says} {tried} seeds did not see it."


def test_the_catalogue_is_long_enough_and_every_bug_has_a_seed() -> None:
    assert len(BUGS) >= 25
    assert set(FOUND) == set(BUGS)
    assert set(BUGS) >= set(DIRECTED)
    assert set(BUGS) >= QUICK


def test_what_was_planted_is_taken_back() -> None:
    before = settle
    with planted(BUGS["retries_are_off_by_one"].plant):
        assert outcomes.settle is not before
        assert vars(moves)["settle"] is outcomes.settle  # wherever it was bound
    assert outcomes.settle is before
    assert vars(moves)["settle"] is before


def test_a_bug_that_does_not_fit_any_more_says_so() -> None:
    planter = Planter()
    with pytest.raises(OutOfDate, match="0 times"):
        planter.rewrite("dag.outcomes:settle", ("no such text", ""))


@pytest.mark.timeout(600)
def test_a_schedule_is_made_shorter() -> None:
    bug = BUGS["expiry_is_judged_by_the_hosts_clock"]
    result = bug.run(bug.seed)
    assert not result.is_good
    with planted(bug.plant):
        left = shrink(result, bug.store, most=12)
    assert len(left) < len(result.faults)
