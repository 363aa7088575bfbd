from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.unit.worker.bodies import an_attempt
from worker.attempt import Verdict, finish_message
from worker.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "attempts"))


def test_a_work_folder_is_private_and_empty(spool: Spool) -> None:
    spool.prepare("a")
    (Path(spool.work("a")) / "left").write_text("from before")
    spool.prepare("a")
    work = Path(spool.work("a"))
    assert list(work.iterdir()) == []
    assert stat.S_IMODE(work.stat().st_mode) == stat.S_IMODE(work.parent.stat().st_mode) == 0o700


def test_a_successor_finds_what_ended_and_removes_what_did_not(spool: Spool) -> None:
    finish = finish_message(an_attempt(), Verdict("success", "", 0, None, '{"a": 1}'), "boot-1")
    spool.prepare("0190-a")
    spool.keep(finish)
    spool.prepare("0190-b")
    spool.prepare("0190-c")
    (Path(spool.folder) / "0190-c" / "outcome.json").write_text('{"attempt_id": "0190-c", "outc')
    assert list(Spool(spool.folder).left()) == [finish]
    assert os.listdir(spool.folder) == ["0190-a"]  # noqa: PTH208  names are wanted


def test_forgetting_removes_everything_even_what_a_task_locked(spool: Spool, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(0o750)
    spool.prepare("a")
    deep = Path(spool.work("a")) / "x" / "y"
    deep.mkdir(parents=True)
    (deep / "file").write_text("")
    (deep.parent / "link").symlink_to(outside)
    deep.chmod(0)
    deep.parent.chmod(0)
    spool.forget("a")
    assert os.listdir(spool.folder) == []  # noqa: PTH208  names are wanted
    assert stat.S_IMODE(outside.stat().st_mode) == 0o750


def test_forgetting_twice_is_no_error(spool: Spool) -> None:
    spool.prepare("a")
    spool.forget("a")
    spool.forget("a")
