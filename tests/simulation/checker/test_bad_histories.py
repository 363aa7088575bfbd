"""Every bad history gives exactly the invariant that it breaks, with the lines that prove it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.simulation.checker import check
from tests.simulation.checker.bad_histories import BAD
from tests.simulation.checker.tale import numbered

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.checker.mutations import Change
    from tests.simulation.checker.tale import Tale


@pytest.mark.parametrize(
    ("invariant", "tale", "change"), [(i, t, c) for i, _, t, c in BAD], ids=[n for _, n, _, _ in BAD]
)
def test_a_bad_history_breaks_exactly_this(invariant: str, tale: Callable[[], Tale], change: Change) -> None:
    lines = tale().lines
    change(lines)
    report = check(numbered(lines))
    assert report.ids == {invariant}, str(report)
    assert all(violation.sentence and violation.rows for violation in report.violations)


def test_there_are_at_least_sixty_of_them() -> None:
    names = Counter(name for _, name, _, _ in BAD)
    assert len(BAD) >= 60
    assert max(names.values()) == 1
