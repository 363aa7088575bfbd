from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.worker.bodies import an_attempt
from worker.attempt import Verdict, finish_message
from worker.spool import Spool

if TYPE_CHECKING:
    from worker.protocol import Finish


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path / "attempts"))


def test_a_work_folder_is_private_and_empty(spool: Spool) -> None:
    spool.prepare("a")
    (Path(spool.work("a")) / "left").write_text("from before")
    spool.prepare("a")
    work = Path(spool.work("a"))
    assert list(work.iterdir()) == []
    assert stat.S_IMODE(work.stat().st_mode) == 0o700


def an_end(attempt_id: str) -> Finish:
    attempt = an_attempt(attempt_id=attempt_id)
    return finish_message(attempt, Verdict("success", "", 0, None, '{"a": 1}'), "boot-1")


def test_a_successor_finds_what_is_unanswered_and_removes_everything_else(spool: Spool) -> None:
    for attempt_id in ("0190-a", "0190-b", "0190-c", "0190-d"):
        spool.prepare(attempt_id)
    for attempt_id in ("0190-a", "0190-b", "0190-d"):
        spool.keep(an_end(attempt_id))
    spool.answered("0190-b")
    spool.forget("0190-b")
    (Path(spool.work("0190-c")) / "file").write_text("")
    Path(spool.output("0190-c")).write_text("1")
    with (Path(spool.folder) / "outcomes").open("a") as file:
        file.write('{"finish": {"attempt_id": "0190-c", "outc')
    successor = Spool(spool.folder)
    assert successor.left() == [an_end("0190-a"), an_end("0190-d")]
    assert sorted(os.listdir(spool.folder)) == ["0190-a", "0190-d", "outcomes"]  # noqa: PTH208  names are wanted
    successor.answered("0190-a")
    assert Spool(spool.folder).left() == [an_end("0190-d")]


def test_a_line_that_was_cut_off_spoils_no_other_one(spool: Spool) -> None:
    spool.keep(an_end("0190-a"))
    os.write(spool._file, b'{"finish": {"attempt_id": "0190-b", "outc')
    spool._is_torn = True
    spool.keep(an_end("0190-c"))
    assert Spool(spool.folder).left() == [an_end("0190-a"), an_end("0190-c")]


def test_the_file_of_outcomes_does_not_grow_for_ever(spool: Spool) -> None:
    end = an_end("0190-a")
    end["output"] = "x" * 100_000
    for _ in range(30):
        spool.keep(end)
        spool.answered("0190-a")
        assert (Path(spool.folder) / "outcomes").stat().st_size < 1_300_000


def test_a_successor_with_a_full_disk_tells_what_its_predecessor_left(spool: Spool) -> None:
    spool.keep(an_end("0190-a"))
    folder = Path(spool.folder)
    (folder / "outcomes").write_bytes((folder / "outcomes").read_bytes() + b'{"fin')
    (folder / "outcomes.new").symlink_to("/dev/full")
    successor = Spool(spool.folder)
    (folder / "outcomes.new").unlink()  # room again
    assert [end["attempt_id"] for end in successor.left()] == ["0190-a"]
    successor.keep(an_end("0190-b"))
    assert {end["attempt_id"] for end in Spool(spool.folder).left()} == {"0190-a", "0190-b"}


def test_a_full_disk_while_the_file_is_written_anew_loses_no_end(spool: Spool) -> None:
    spool.keep(an_end("0190-a"))
    (Path(spool.folder) / "outcomes.new").symlink_to("/dev/full")
    spool._compact()
    spool.keep(an_end("0190-b"))
    spool.answered("0190-a")
    (Path(spool.folder) / "outcomes.new").unlink()
    assert [end["attempt_id"] for end in Spool(spool.folder).left()] == ["0190-b"]


def test_an_empty_folder_is_handed_on_and_a_changed_one_is_not(spool: Spool) -> None:
    spool.prepare("a")
    first = Path(spool.work("a")).stat().st_ino
    spool.forget("a")
    spool.prepare("b")
    assert Path(spool.work("b")).stat().st_ino == first
    Path(spool.work("b")).chmod(0o755)
    spool.forget("b")
    assert not Path(spool.work("b")).exists()
    spool.prepare("c")
    assert stat.S_IMODE(Path(spool.work("c")).stat().st_mode) == 0o700


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
    Path(spool.output("a")).write_text("1")
    spool.forget("a")
    assert os.listdir(spool.folder) == ["outcomes"]  # noqa: PTH208  names are wanted
    assert stat.S_IMODE(outside.stat().st_mode) == 0o750


def test_forgetting_twice_is_no_error(spool: Spool) -> None:
    spool.prepare("a")
    spool.forget("a")
    spool.forget("a")


def test_a_folder_that_a_task_removed_is_made_again_with_what_it_must_not_forget(spool: Spool, tmp_path: Path) -> None:
    spool.prepare("0190-a")
    spool.forget("0190-a")  # there is a spare
    spool.keep(an_end("0190-b"))
    shutil.rmtree(spool.folder)
    spool.prepare("0190-c")
    assert stat.S_IMODE(Path(spool.folder).stat().st_mode) == 0o700
    assert Path(spool.work("0190-c")).is_dir()
    spool.keep(an_end("0190-d"))
    assert [end["attempt_id"] for end in Spool(str(tmp_path / "attempts")).left()] == ["0190-b", "0190-d"]


def test_a_remote_agent_makes_it_again_as_well(spool: Spool, tmp_path: Path) -> None:
    shutil.rmtree(spool.folder)
    spool.probe(0)
    spool.begin("0190-a", "key", 0)
    assert Spool(str(tmp_path / "attempts")).orphans() == {"0190-a": "key"}


@pytest.mark.parametrize(
    ("left", "line"),
    [
        pytest.param(b"ValueError: a\0b", r"ValueError: a\x00b", id="NUL"),
        pytest.param(b"\x1b[31mred\x07\x7f", r"\x1b[31mred\x07\x7f", id="what a terminal obeys"),
        pytest.param("a\x9bb".encode(), r"a\x9bb", id="what an old terminal obeys"),
        pytest.param(b"a\n\t b\r\n", "a b", id="more than one line"),
        pytest.param("日本 💥".encode(), "日本 💥", id="other scripts"),
        pytest.param(b"\xed\xa0\x80", "\ufffd" * 3, id="half a character"),
        pytest.param(b"\0" * 100_000, (r"\x00" * 1024)[:4095] + "…", id="nothing but NULs"),
        pytest.param(b"x" * 100_000, "x" * 4095 + "…", id="too long"),
    ],
)
def test_an_error_is_one_line_that_can_be_stored_and_shown(spool: Spool, left: bytes, line: str) -> None:
    Path(spool.error_file("a")).write_bytes(left)
    assert spool.error("a") == line


def test_every_finish_tells_an_error_that_can_be_stored() -> None:
    verdict = Verdict("lost", "no pipe: \0 \ud800\x1f" + "y" * 10_000)
    error = finish_message(an_attempt(), verdict, "boot-1")["error"]
    assert error.startswith(r"no pipe: \x00 \ud800 y")
    assert len(error) == 4096
    error.encode()
