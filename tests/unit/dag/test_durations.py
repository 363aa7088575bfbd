"""ISO 8601 durations."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dag.durations import LONGEST, PATTERN, BadDuration, format_duration, parse


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("PT30S", timedelta(seconds=30)),
        ("PT0.2S", timedelta(milliseconds=200)),
        ("PT0.000001S", timedelta(microseconds=1)),
        ("PT0S", timedelta(0)),
        ("PT1H30M", timedelta(minutes=90)),
        ("PT90M", timedelta(minutes=90)),
        ("PT36H", timedelta(hours=36)),
        ("P1D", timedelta(days=1)),
        ("P1DT12H", timedelta(hours=36)),
        ("P2W", timedelta(weeks=2)),
        ("P366D", LONGEST),
    ],
)
def test_durations_of_a_fixed_length_are_read(text: str, length: timedelta) -> None:
    assert parse(text) == length
    assert re.match(PATTERN, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a duration"),
        ("30", "is not a duration"),
        ("30s", "is not a duration"),
        ("P", "is not a duration"),
        ("PT", "is not a duration"),
        ("P1DT", "is not a duration"),
        ("PT1S\n", "is not a duration"),
        ("pt1s", "is not a duration"),
        ("PT1,5S", "is not a duration"),
        ("PT0.0000001S", "is not a duration"),
        ("PT1M1H", "is not a duration"),
        ("PT\uff11S", "is not a duration"),
        ("x" * 1000, "x..."),
        ("-PT1S", "has a sign"),
        ("+PT1S", "has a sign"),
        ("P1M", "months or years"),
        ("P1Y", "months or years"),
        ("P1Y2M", "months or years"),
        ("P367D", "longer than P366D"),
        ("P999999999W", "longer than P366D"),
        ("PT999999999S", "longer than P366D"),
        ("P99999999999999999999D", "longer than P366D"),
    ],
)
def test_what_is_no_duration_is_refused_with_its_reason(text: str, message: str) -> None:
    with pytest.raises(BadDuration) as caught:
        parse(text)
    assert message in caught.value.message
    assert caught.value.hint


@given(st.timedeltas(timedelta(0), LONGEST))
def test_what_is_written_is_read_back(length: timedelta) -> None:
    text = format_duration(length)
    assert parse(text) == length
    assert re.match(PATTERN, text)


@given(st.from_regex(PATTERN, fullmatch=True))
def test_the_published_pattern_lets_through_what_is_read_or_too_long(text: str) -> None:
    try:
        parse(text.rstrip("\n"))
    except BadDuration as wrong:
        assert "longer" in wrong.message  # noqa: PT017  # both outcomes are right


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(0), "PT0S"),
        (timedelta(days=1), "P1D"),
        (timedelta(days=1, seconds=1), "P1DT1S"),
        (timedelta(hours=1, minutes=2, seconds=3, microseconds=400_000), "PT1H2M3.4S"),
        (timedelta(microseconds=1), "PT0.000001S"),
    ],
)
def test_durations_are_written_in_their_shortest_form(length: timedelta, text: str) -> None:
    assert format_duration(length) == text
