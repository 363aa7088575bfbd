from __future__ import annotations

from pathlib import Path

import pytest

from worker import logs


def test_logs_are_spread_over_folders_by_the_end_of_the_id() -> None:
    assert logs.path(Path("/logs"), "0190-abcdef") == Path("/logs/ef/0190-abcdef.log")


def test_a_task_without_output_leaves_no_file(tmp_path: Path) -> None:
    log = logs.Log(tmp_path / "a" / "a.log")
    log.close()
    assert (log.size, log.dropped, list(tmp_path.iterdir())) == (0, 0, [])


def test_bytes_are_in_the_file_at_once_and_as_they_came(tmp_path: Path) -> None:
    log = logs.Log(tmp_path / "a" / "a.log")
    log.write(b"\xff\0 one")
    assert (tmp_path / "a" / "a.log").read_bytes() == b"\xff\0 one"
    log.write(b" two\n")
    log.close()
    assert (tmp_path / "a" / "a.log").read_bytes() == b"\xff\0 one two\n"
    assert (log.size, log.dropped) == (11, 0)


def test_what_is_over_the_cap_is_counted_and_said(tmp_path: Path) -> None:
    log = logs.Log(tmp_path / "a.log", cap=10)
    for piece in (b"12345", b"6789", b"0abc", b"def"):
        log.write(piece)
    log.close()
    said = b"\n[runyard] 6 bytes of output were dropped: a log holds at most 10 bytes\n"
    assert (tmp_path / "a.log").read_bytes() == b"1234567890" + said
    assert (log.size, log.dropped) == (10 + len(said), 6)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_drops_and_counts(tmp_path: Path) -> None:
    (tmp_path / "full.log").symlink_to("/dev/full")
    log = logs.Log(tmp_path / "full.log")
    log.write(b"x" * 1000)
    log.write(b"y" * 1000)
    log.close()
    assert (log.size, log.dropped) == (0, 2000)


def test_a_folder_that_cannot_be_made_drops_and_counts(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    log = logs.Log(tmp_path / "plain" / "a" / "a.log")
    log.write(b"x")
    log.close()
    assert (log.size, log.dropped) == (0, 1)
