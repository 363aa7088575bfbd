"""Pauses between tries."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dag.retry import DEFAULT_CAP, RetryPolicy, delay_before

S = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("policy", "pauses"),
    [
        pytest.param(RetryPolicy(30 * S), [30, 30, 30, 30], id="the same every time"),
        pytest.param(RetryPolicy(10 * S, backoff=True), [10, 20, 40, 80], id="twice as long every time"),
        pytest.param(RetryPolicy(10 * S, backoff=True, max_delay=30 * S), [10, 20, 30, 30], id="the cap"),
        pytest.param(RetryPolicy(10 * S, backoff=True, max_delay=40 * S), [10, 20, 40, 40], id="the cap is met"),
        pytest.param(RetryPolicy(10 * S, max_delay=5 * S), [5, 5, 5, 5], id="a cap below the delay wins"),
        pytest.param(RetryPolicy(0 * S, backoff=True), [0, 0, 0, 0], id="no pause stays none"),
        pytest.param(RetryPolicy(10 * S, backoff=True, jitter=0.5), [5, 10, 20, 40], id="jitter shortens"),
        pytest.param(RetryPolicy(10 * S, jitter=1.0), [0, 0, 0, 0], id="all of it is left to chance"),
    ],
)
def test_pauses_grow_as_the_policy_says(policy: RetryPolicy, pauses: list[int]) -> None:
    luck = 1.0 if policy.jitter else 0.5  # 1.0 is just outside: the worst case
    assert [delay_before(policy, failures, luck) for failures in range(1, 5)] == [pause * S for pause in pauses]


def test_backoff_without_a_cap_stops_at_one_day() -> None:
    assert delay_before(RetryPolicy(S, backoff=True), 100, 0.0) == DEFAULT_CAP


def test_a_delay_beyond_the_default_cap_stays_as_it_is() -> None:
    assert delay_before(RetryPolicy(timedelta(days=300), backoff=True), 9, 0.0) == timedelta(days=300)


@pytest.mark.parametrize("failures", [2, 20, 40, 60, 1000, 10**9])
def test_the_longest_delay_does_not_overflow_when_it_grows(failures: int) -> None:
    longest = timedelta(days=366)
    assert delay_before(RetryPolicy(longest, backoff=True, max_delay=longest), failures, 0.0) == longest
    assert delay_before(RetryPolicy(longest / 3, backoff=True, max_delay=longest), failures, 0.0) == min(
        longest, longest / 3 * 2 ** min(failures - 1, 2)
    )


@given(
    st.builds(
        RetryPolicy,
        st.timedeltas(timedelta(0), timedelta(days=366)),
        st.booleans(),
        st.none() | st.timedeltas(timedelta(0), timedelta(days=366)),
        st.floats(0, 1),
    ),
    st.integers(1, 10**9),
    st.floats(0, 1, exclude_max=True),
)
def test_a_pause_never_overflows_and_stays_within_its_bounds(policy: RetryPolicy, failures: int, luck: float) -> None:
    pause = delay_before(policy, failures, luck)
    longest = max(DEFAULT_CAP, policy.delay) if policy.max_delay is None else policy.max_delay
    assert timedelta(0) <= pause <= longest
    assert delay_before(policy, failures, 0.0) <= delay_before(policy, failures + 1, 0.0)
