"""One history, all invariants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.checker.clients import Clients
from tests.simulation.checker.history import read
from tests.simulation.checker.journal import Journal
from tests.simulation.checker.replay import Replay
from tests.simulation.checker.rest import judge_end
from tests.simulation.checker.violations import Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation.checker.violations import Line


def check(lines: Iterable[Line]) -> Report:
    """Return everything that is wrong in a history; raise :exc:`NotAHistory` where it is none."""
    history, report = read(lines), Report()
    replay = Replay(history, report)
    replay.play()
    Journal(history, replay, report).judge()
    Clients(history, replay, report).judge()
    judge_end(history, replay, report)
    return report
