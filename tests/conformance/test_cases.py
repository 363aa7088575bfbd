"""Every case of the brief is checked: by a scenario of the kit, or by a test that is named here."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from executors.conformance import scenarios
from executors.conformance.cases import CASES, ELSEWHERE

ROOT = Path(__file__).parents[2]

#: What checks the cases that are not an executor's.
INSTEAD = {
    6: "tests/unit/dag/test_spec.py",
    10: "tests/metastore/test_workers.py::test_the_credits_of_a_queue_are_never_exceeded_and_the_best_go_first",
}
#: What the brief asks for of Dramatiq beyond the common cases.
EXTRAS = {
    "redis_flushall": "executors/conformance/messages.py::flushed_medium_costs_only_latency",
    "rabbit_channel_closed_by_consumer_timeout": "tests/conformance/test_queue.py"
    "::test_a_channel_that_rabbitmq_closes_costs_nothing",
    "unknown_queue_no_worker_message": "tests/api/test_workers.py",
    "cli_plain_dramatiq_module_starts": "tests/queues/test_command_line.py"
    "::test_the_librarys_own_command_line_starts_a_worker",
    "master_kill_9_no_orphans": "tests/queues/test_command_line.py"
    "::test_with_the_master_its_workers_die_and_their_tasks_go_on",
    "prefetch_equals_threads": "tests/queues/test_consuming.py::test_a_worker_takes_as_many_messages_as_it_has_threads",
}


def test_all_57_are_there() -> None:
    assert sorted(CASES) == list(range(1, 58))


@pytest.mark.parametrize("number", CASES)
def test_a_case_has_a_scenario_or_a_reason_why_not(number: int) -> None:
    of_it = [one.title for one in scenarios() if number in one.numbers]
    assert bool(of_it) != (number in ELSEWHERE), of_it


def test_a_scenario_has_one_name_and_says_what_it_promises() -> None:
    names = Counter(one.title for one in scenarios())
    assert [name for name, count in names.items() if count > 1] == []
    for one in scenarios():
        assert set(one.numbers) <= set(CASES), one.title
        assert one.guarantee.endswith("."), one.title


@pytest.mark.parametrize("place", [*INSTEAD.values(), *EXTRAS.values()])
def test_what_checks_it_instead_is_there(place: str) -> None:
    file, _, name = place.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert not name or name in functions


def test_who_is_named_checks_what_has_no_scenario() -> None:
    assert set(INSTEAD) <= set(ELSEWHERE)
