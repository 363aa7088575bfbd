from __future__ import annotations

from datetime import UTC, timedelta

from runyard.world import SystemClock, SystemEntropy


def test_the_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC
    assert SystemClock().now().utcoffset() == timedelta(0)


def test_the_monotonic_clock_never_goes_back() -> None:
    clock = SystemClock()
    seen = [clock.monotonic() for _ in range(1000)]
    assert seen == sorted(seen)


def test_tokens_have_the_asked_size_and_differ() -> None:
    entropy = SystemEntropy()
    tokens = {entropy.token(16) for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(token) for token in tokens} == {16}


def test_luck_is_at_least_zero_and_less_than_one() -> None:
    entropy = SystemEntropy()
    lucks = [entropy.luck() for _ in range(10_000)]
    assert all(0 <= luck < 1 for luck in lucks)
    assert 0.4 < sum(lucks) / len(lucks) < 0.6
