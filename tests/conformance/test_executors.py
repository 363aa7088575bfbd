"""Every guarantee of an executor, for each of ours.

Without ``--long`` what is the supervisor's alone is checked where it is quickest, and the second and third broker are
checked for what a broker can spoil.  With it every scenario runs everywhere, those that take minutes too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from executors.conformance import Scenario, scenarios
from runyard.conformance.plugin import check

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from executors.conformance import Harness

_RUNNING = frozenset({"placement", "fencing", "outcomes", "cancelling", "recovery"})
_BROKER = frozenset({"placement", "queues", "messages", "recovery"})
_SUPERVISOR = frozenset({"python", "kinds", "trees"})
_ALL = frozenset(one.topic for one in scenarios())


@dataclass(frozen=True, slots=True)
class Under:
    """An executor, the fixture that makes its harnesses, and which topics are checked when time is short."""

    name: str
    fixture: str
    topics: frozenset[str]
    marks: tuple[pytest.MarkDecorator, ...] = ()


EXECUTORS = (
    Under("sequential", "sequential", _RUNNING),
    Under("local", "local", _ALL),
    Under("dramatiq-redis", "dramatiq_redis", _ALL - _SUPERVISOR, (pytest.mark.redis,)),
    Under("dramatiq-rabbitmq", "dramatiq_rabbitmq", _BROKER, (pytest.mark.rabbitmq, pytest.mark.postgres)),
    Under("celery-redis", "celery_redis", _BROKER, (pytest.mark.redis,)),
    Under("celery-rabbitmq", "celery_rabbitmq", frozenset(), (pytest.mark.rabbitmq,)),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    is_long = metafunc.config.getoption("--long")
    metafunc.parametrize(
        ("under", "scenario"),
        [
            pytest.param(under, scenario, id=f"{under.name}-{scenario.title}", marks=under.marks)
            for under in EXECUTORS
            for scenario in scenarios()
            if is_long or (scenario.topic in under.topics and not scenario.long)
        ],
    )


@pytest.mark.timeout(400)
def test_the_executor_promises_it(
    under: Under, scenario: Scenario, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make: Callable[[Path], Harness] = request.getfixturevalue(under.fixture)
    check(scenario, make(tmp_path))
