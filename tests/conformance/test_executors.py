"""Every guarantee of an executor, for each of ours that runs on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from executors.conformance import Scenario, scenarios
from runyard.conformance.plugin import check
from tests.conformance.local_harness import LocalHarness

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.title)
@pytest.mark.parametrize(("name", "slots"), [("sequential", 1), ("local", 4)], ids=["sequential", "local"])
def test_the_executor_promises_it(name: str, slots: int, scenario: Scenario, tmp_path: Path) -> None:
    check(scenario, LocalHarness(name, slots, tmp_path))
