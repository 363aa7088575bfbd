from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.worker.bodies import a_body, an_attempt
from worker.attempt import Verdict, judge, stopped
from worker.spool import Spool

EXITED_0, EXITED_3, EXITED_127 = 0, 3 << 8, 127 << 8
KILLED, SEGFAULT = 9, 11 | 0x80


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(str(tmp_path / "attempts"))
    spool.prepare("0190-a")
    return spool


@pytest.mark.parametrize(
    ("status", "stop", "verdict"),
    [
        pytest.param(EXITED_0, None, Verdict("success", "", 0), id="exit code 0"),
        pytest.param(EXITED_3, None, Verdict("failed", "exit code 3", 3), id="another exit code"),
        pytest.param(EXITED_127, None, Verdict("failed", "exit code 127", 127), id="127 of the task itself"),
        pytest.param(SEGFAULT, None, Verdict("failed", "killed by SIGSEGV", None, 11), id="a crash with a core"),
        pytest.param(KILLED, None, Verdict("failed", "killed by SIGKILL", None, 9), id="a kill from outside"),
        pytest.param(
            EXITED_0, "timeout", Verdict("timed_out", "ran longer than its execution_timeout of 1.5 s", 0), id="timeout"
        ),
        pytest.param(EXITED_0, "user", Verdict("cancelled", "cancelled on request", 0), id="it obeyed a cancel"),
        pytest.param(
            KILLED, "user", Verdict("cancelled", "cancelled on request", None, 9), id="it had to be killed for a cancel"
        ),
        pytest.param(
            EXITED_0, "drain", Verdict("drained", "stopped because the agent is shutting down", 0), id="drained"
        ),
    ],
)
def test_an_end_is_judged_by_why_it_was_stopped_and_then_by_its_status(
    spool: Spool, status: int, stop: str | None, verdict: Verdict
) -> None:
    attempt = an_attempt(status=status, stop=stop, body=a_body(timeout=1.5))
    assert judge(attempt, spool) == verdict


def test_an_exit_code_of_0_with_a_bad_output_is_a_failure(spool: Spool) -> None:
    Path(spool.output("0190-a")).write_text("{")
    verdict = judge(an_attempt(status=EXITED_0), spool)
    assert (verdict.outcome, verdict.exit_code, verdict.output) == ("failed", 0, None)
    assert verdict.error.startswith("output is not JSON: ")


def test_the_output_of_a_failure_is_not_looked_at(spool: Spool) -> None:
    Path(spool.output("0190-a")).write_text("1")
    assert judge(an_attempt(status=EXITED_3), spool).output is None


def test_a_line_left_by_the_runner_is_the_error(spool: Spool) -> None:
    Path(spool.error_file("0190-a")).write_bytes(b"ValueError: no\nway \xff")
    assert judge(an_attempt(status=EXITED_3), spool).error == "ValueError: no way �"


@pytest.mark.parametrize(
    ("reasons", "wins"),
    [
        (["drain", "user"], "user"),
        (["user", "drain"], "user"),
        (["drain", "timeout"], "timeout"),
        (["timeout", "user"], "user"),
        (["user", "run_timeout"], "user"),
        (["fail_fast", "timeout"], "fail_fast"),
        (["user", "fenced"], "fenced"),
    ],
)
def test_the_stronger_reason_to_stop_wins(reasons: list[str], wins: str) -> None:
    attempt = an_attempt()
    for reason in reasons:
        attempt.wants(reason)  # type: ignore[arg-type]  # a table of literals widens to str
    assert attempt.stop == wins


def test_an_attempt_that_was_stopped_before_it_ran_has_no_exit_code() -> None:
    assert stopped(an_attempt(stop="user")) == Verdict("cancelled", "cancelled on request")
