"""Trigger rules: every ending of the upstreams against a second, plainly written opinion."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dag.trigger_rules import TABLE, Counts, TriggerRule, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTCOMES = ("success", "failed", "upstream_failed", "skipped", "cancelled")
R, S, U = Verdict.RUN, Verdict.SKIP, Verdict.UPSTREAM_FAILED

#: What two upstreams, both ended, lead to.  Columns: success, failed, upstream_failed, skipped against the same.
PAIRS: dict[TriggerRule, dict[tuple[str, str], Verdict]] = {
    rule: dict(zip([(a, b) for i, a in enumerate(OUTCOMES[:4]) for b in OUTCOMES[i:4]], verdicts, strict=True))
    for rule, verdicts in {
        #                                          ss sf su sk ff fu fk uu uk kk   (k = skipped)
        TriggerRule.ALL_SUCCESS: (R, U, U, S, U, U, U, U, U, S),
        TriggerRule.ALL_FAILED: (S, S, S, S, R, R, S, R, S, S),
        TriggerRule.ALL_DONE: (R, R, R, R, R, R, R, R, R, R),
        TriggerRule.ALL_DONE_MIN_ONE_SUCCESS: (R, R, R, R, U, U, U, U, U, S),
        TriggerRule.ONE_SUCCESS: (R, R, R, R, U, U, U, U, U, S),
        TriggerRule.ONE_FAILED: (S, R, R, S, R, R, R, R, R, S),
        TriggerRule.ONE_DONE: (R, R, R, R, R, R, R, S, S, S),
        TriggerRule.NONE_FAILED: (R, U, U, R, U, U, U, U, U, R),
        TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: (R, U, U, R, U, U, U, U, U, S),
        TriggerRule.NONE_SKIPPED: (R, R, R, S, R, R, S, R, S, S),
        TriggerRule.ALL_SKIPPED: (S, S, S, S, S, S, S, S, S, R),
        TriggerRule.ALWAYS: (R, R, R, R, R, R, R, R, R, R),
    }.items()
}


def counts(ended: Sequence[str]) -> Counts:
    return Counts(**{name: list(ended).count(name) for name in OUTCOMES})


def test_the_table_has_every_rule() -> None:
    assert set(TABLE) == set(TriggerRule) == set(PAIRS)


@pytest.mark.parametrize("rule", TriggerRule, ids=str)
def test_two_ended_upstreams_lead_to_what_the_rule_says(rule: TriggerRule) -> None:
    assert {pair: judge(rule, 2, counts(pair)) for pair in PAIRS[rule]} == PAIRS[rule]


@pytest.mark.parametrize("rule", TriggerRule, ids=str)
def test_a_task_without_upstreams_runs(rule: TriggerRule) -> None:
    assert judge(rule, 0, Counts()) is Verdict.RUN


@pytest.mark.parametrize("rule", TriggerRule, ids=str)
def test_before_anything_ended_only_always_runs(rule: TriggerRule) -> None:
    assert judge(rule, 1, Counts()) is (Verdict.RUN if rule is TriggerRule.ALWAYS else Verdict.WAIT)


@pytest.mark.parametrize("rule", TriggerRule, ids=str)
@pytest.mark.parametrize("other", ["success", "failed", "upstream_failed", "skipped", None])
def test_cancelled_counts_like_failed(rule: TriggerRule, other: str | None) -> None:
    beside = [other] if other else []
    assert judge(rule, 2, counts(["cancelled", *beside])) is judge(rule, 2, counts(["failed", *beside]))


@pytest.mark.parametrize(
    ("rule", "first", "verdict"),
    [
        (TriggerRule.ALL_SUCCESS, "failed", U),
        (TriggerRule.ALL_SUCCESS, "skipped", Verdict.WAIT),
        (TriggerRule.ALL_FAILED, "success", S),
        (TriggerRule.ALL_FAILED, "skipped", S),
        (TriggerRule.ONE_SUCCESS, "success", R),
        (TriggerRule.ONE_FAILED, "upstream_failed", R),
        (TriggerRule.ONE_DONE, "failed", R),
        (TriggerRule.ONE_DONE, "upstream_failed", Verdict.WAIT),
        (TriggerRule.NONE_FAILED, "upstream_failed", U),
        (TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS, "success", Verdict.WAIT),
        (TriggerRule.NONE_SKIPPED, "skipped", S),
        (TriggerRule.ALL_SKIPPED, "success", S),
        (TriggerRule.ALL_DONE, "failed", Verdict.WAIT),
        (TriggerRule.ALL_DONE_MIN_ONE_SUCCESS, "success", Verdict.WAIT),
    ],
)
def test_what_is_certain_after_one_of_two_is_said_at_once(rule: TriggerRule, first: str, verdict: Verdict) -> None:
    assert judge(rule, 2, counts([first])) is verdict


@given(st.sampled_from(list(TriggerRule)), st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=8))
def test_a_verdict_never_changes_and_the_order_of_ends_does_not_matter(rule: TriggerRule, ended: list[str]) -> None:
    said = [judge(rule, len(ended), counts(ended[:done])) for done in range(len(ended) + 1)]
    final = said[-1]
    assert final is not Verdict.WAIT
    assert set(said) <= {Verdict.WAIT, final}
    assert said == sorted(said, key=lambda verdict: verdict is not Verdict.WAIT)
    assert judge(rule, len(ended), counts(sorted(ended))) is final


@pytest.mark.parametrize("rule", TriggerRule, ids=str)
def test_what_will_not_run_is_said_as_soon_as_it_is_certain(rule: TriggerRule) -> None:
    total = 3
    for done in range(total):
        for ended in product(OUTCOMES, repeat=done):
            endings = {judge(rule, total, counts(ended + rest)) for rest in product(OUTCOMES, repeat=total - done)}
            if judge(rule, total, counts(ended)) is Verdict.WAIT:
                # A rule that begins with "all done" waits although it knows that it will run.
                assert endings == {R} or len(endings) > 1, (rule, ended)
