"""The number of an agent among all of its home."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from worker.agent import _count_boot

if TYPE_CHECKING:
    from pathlib import Path


def test_it_grows_with_every_agent(tmp_path: Path) -> None:
    numbers = [_count_boot(tmp_path / "boots") for _ in range(5)]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("text", ["", "no number", "\0\0\0\0"])
def test_a_file_that_a_crash_has_emptied_is_made_up_for_by_the_clock(tmp_path: Path, text: str) -> None:
    first = _count_boot(tmp_path / "boots")
    (tmp_path / "boots").write_text(text)
    assert _count_boot(tmp_path / "boots") >= first


def test_a_clock_that_is_set_back_is_made_up_for_by_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _count_boot(tmp_path / "boots")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert _count_boot(tmp_path / "boots") == first + 1


def test_a_disk_that_takes_nothing_is_no_reason_not_to_start(tmp_path: Path) -> None:
    assert _count_boot(tmp_path / "nowhere" / "boots") > 0
