"""The API under attack by schemathesis: examples, coverage, fuzzing and stories, with all checks, over a socket.

Nothing may answer 5xx, with a status, a type or a body that the document does not have, without its credential, or with
a success to what the document calls wrong.  What schemathesis finds and is right is in ``excused.py``, with its reason.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import pytest

from tests.attack.assault import CHECKS, PHASES, Assault, Report
from tests.attack.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from tests.databases import PostgresServer, SqliteFiles

#: The least that one test run sends, and the long one.
ENOUGH: Final = 3_000
PLENTY: Final = 50_000


def attack(url: str, folder: Path, examples: int, seed: int) -> Report:
    with Target(url, folder) as target:
        before = target.counted()
        report = Assault(target).run(examples, seed)
        arrived = target.counted() - before
    assert arrived >= report.requests, "the server has not seen what was sent"
    print(report)  # noqa: T201  # the figures, for whoever asked for a long run
    assert not report.errors, str(report)
    assert not report.findings, str(report)
    assert not [status for status in report.statuses if status >= 500], str(report)
    assert set(report.checks) == set(CHECKS)
    assert set(report.phases) >= set(PHASES)
    assert len(report.operations) >= 40
    return report


def never_right(*reports: Report) -> set[str]:
    """Return the calls that not one drawn request got right: then nothing looked at their answers."""
    called = {name for one in reports for name in one.operations}
    return called - {name for one in reports for name in one.successes}


@pytest.mark.timeout(4 * 3600)
def test_nothing_that_is_sent_breaks_the_api_or_its_word(
    sqlite_files: SqliteFiles, tmp_path: Path, request: pytest.FixtureRequest, *, long: bool
) -> None:
    first = attack(sqlite_files.create(tmp_path), tmp_path, examples=15, seed=1)
    sent = first.requests
    assert sent >= ENOUGH
    if never_right(first):
        # A start is right once in some hundred requests: another seed may have what this one missed.
        again = tmp_path / "again"
        again.mkdir()
        assert not never_right(first, attack(sqlite_files.create(again), again, examples=15, seed=2))
    rounds = 0
    while long and sent < PLENTY:
        folder = tmp_path / str(rounds)
        folder.mkdir()
        seed = secrets.randbits(32)
        if rounds % 4:
            sent += attack(sqlite_files.create(folder), folder, examples=100, seed=seed).requests
        else:
            server: PostgresServer = request.getfixturevalue("postgres_server")
            url = server.borrow()
            sent += attack(url, folder, examples=100, seed=seed).requests
            server.give_back(url)
        rounds += 1
        print(f"round {rounds}, seed {seed}: {sent} requests")  # noqa: T201  # as above
