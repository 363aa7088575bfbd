"""The checker finds nothing where nothing is wrong, and says how much it looked at."""

from __future__ import annotations

import pytest

from tests.simulation.checker import check
from tests.simulation.checker.tale import numbered
from tests.simulation.checker.tales import GOOD


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_is_good(name: str) -> None:
    report = check(numbered(GOOD[name]().lines))
    assert not report.total, str(report)
    assert report.counts["events"] or name == "deleted"


@pytest.mark.parametrize("name", GOOD)
def test_every_beginning_of_a_good_log_is_good(name: str) -> None:
    lines = numbered(GOOD[name]().lines)
    told = [line for line in lines if line["type"] not in ("run", "instance", "used", "rest")]
    # Events and journal alone: what was answered came after what is cut off here.
    lines = [line | {"clients": False} for line in told[:1]] + [line for line in told[1:] if line["type"] != "call"]
    for end in range(1, len(lines)):
        report = check(lines[:end])
        assert not report.ids - {"I-8"}, f"{end}: {report}"  # that one looks at whole transactions
