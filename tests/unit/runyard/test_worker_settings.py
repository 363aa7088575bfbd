from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runyard.exits import Exit, Stop
from runyard.settings import WorkerSettings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("RUNYARD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_everything_but_the_broker_has_a_default(tmp_path: Path) -> None:
    settings = WorkerSettings.read()
    assert settings.broker_url is None
    assert settings.api_url == "http://127.0.0.1:8080"
    assert settings.worker_queues == ("default",)
    assert settings.worker_concurrency >= 4
    assert settings.worker_name == os.uname().nodename
    assert settings.code == tmp_path / ".runyard" / "code"


def test_a_worker_does_not_read_where_the_database_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNYARD_DATABASE_URL", "no url at all")
    assert "no url" not in repr(WorkerSettings.read())


def test_the_command_line_wins_where_it_says_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNYARD_WORKER_QUEUES", "a, b,a,")
    monkeypatch.setenv("RUNYARD_WORKER_CONCURRENCY", "3")
    settings = WorkerSettings.read(worker_queues=None, worker_concurrency=7)
    assert settings.worker_queues == ("a", "b")
    assert settings.worker_concurrency == 7


def test_the_key_is_that_of_the_setting_or_of_its_file_or_of_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".runyard").mkdir()
    (tmp_path / ".runyard" / "admin.key").write_text("of-the-home")
    assert WorkerSettings.read().key() == "of-the-home"
    (tmp_path / "key").write_text("of-the-file\n")
    monkeypatch.setenv("RUNYARD_API_KEY_FILE", str(tmp_path / "key"))
    assert WorkerSettings.read().key() == "of-the-file"
    monkeypatch.setenv("RUNYARD_API_KEY", "of-the-setting")
    assert WorkerSettings.read().key() == "of-the-setting"
    assert "of-the-setting" not in repr(WorkerSettings.read())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUNYARD_WORKER_QUEUES", ","),
        ("RUNYARD_WORKER_QUEUES", "a b"),
        ("RUNYARD_WORKER_QUEUES", "a.DQ"),
        ("RUNYARD_WORKER_CONCURRENCY", "0"),
        ("RUNYARD_WORKER_NAME", "a\nb"),
        ("RUNYARD_WORKER_DRAIN", "-1"),
        ("RUNYARD_QUEUE_PREFIX", "a.b"),
        ("RUNYARD_API_URL", "ftp://h"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Stop) as caught:
        WorkerSettings.read()
    assert caught.value.code is Exit.USAGE
    assert name in caught.value.message


def test_without_a_key_there_is_a_way_out() -> None:
    with pytest.raises(Stop) as caught:
        WorkerSettings.read().key()
    assert caught.value.code is Exit.REFUSED
    assert "runyard keys create" in caught.value.hint
