from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runyard import home
from runyard.exits import Exit, Stop

ROOT = Path(__file__).parents[3]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_home_is_private(tmp_path: Path) -> None:
    home.prepare(tmp_path / "a" / "home")
    assert mode(tmp_path / "a" / "home") == 0o700
    assert mode(tmp_path / "a" / "home" / "code") == 0o700


def test_a_home_that_others_could_enter_is_made_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    home.prepare(tmp_path)
    assert mode(tmp_path) == 0o700


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Stop, match="not a folder") as stop:
        home.prepare(tmp_path / "file")
    assert stop.value.code is Exit.HOME
    assert "--home" in stop.value.hint


def test_a_home_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Stop, match="cannot be made: Not a directory") as stop:
        home.prepare(tmp_path / "file" / "home")
    assert stop.value.code is Exit.HOME


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_somebody_elses_folder_is_no_home(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, -1)
    with pytest.raises(Stop, match="belongs to another user") as stop:
        home.prepare(tmp_path)
    assert stop.value.code is Exit.HOME


def test_a_home_that_cannot_be_written_to_is_refused_in_words(tmp_path: Path) -> None:
    # Also root cannot open a folder for writing.
    (tmp_path / "lock").mkdir()
    with pytest.raises(Stop, match="cannot be written to: Is a directory") as stop, home.locked(tmp_path):
        pass
    assert stop.value.code is Exit.HOME


def test_a_home_has_one_service_and_the_second_is_told_whose_it_is(tmp_path: Path) -> None:
    with (
        home.locked(tmp_path),
        pytest.raises(Stop, match=f"in use by another service \\(pid {os.getpid()}\\)") as stop,
        home.locked(tmp_path),
    ):
        pass
    assert stop.value.code is Exit.IN_USE


def test_a_lock_ends_with_its_process_however_that_ended(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, signal
from runyard import home
with home.locked(pathlib.Path({str(tmp_path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -9
    with home.locked(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_lock_is_not_taken_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Stop, match="cannot be written to"), home.locked(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_file_holds_the_key_and_nothing_else_for_its_owner_only(tmp_path: Path) -> None:
    home.write_key(tmp_path, "runyard_a_b_c")
    assert home.key_path(tmp_path).read_bytes() == b"runyard_a_b_c"
    assert mode(home.key_path(tmp_path)) == 0o600
    assert home.read_key(tmp_path) == "runyard_a_b_c"
    assert [path.name for path in tmp_path.iterdir()] == ["admin.key"]


def test_a_home_without_a_key_file_has_no_key(tmp_path: Path) -> None:
    assert home.read_key(tmp_path) is None


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    home.key_path(tmp_path).write_bytes(b"\xff\xfe")
    with pytest.raises(Stop, match=r"admin\.key cannot be read") as stop:
        home.read_key(tmp_path)
    assert stop.value.code is Exit.HOME


def test_a_log_store_is_made_once_and_only_where_a_folder_can_be(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "logs"
    home.prepare_logs(folder)
    home.prepare_logs(folder)
    assert mode(folder) == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(Stop, match="cannot be made") as stop:
        home.prepare_logs(tmp_path / "file")
    assert stop.value.code is Exit.HOME
    assert "RUNYARD_LOG_STORE" in stop.value.hint
