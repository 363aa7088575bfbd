"""Variables that look like settings, and what may have been meant."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from runyard.misspelled import misspelled, warn


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("RUNYARD_DATABSE_URL", "did you mean RUNYARD_DATABASE_URL?"),
        ("RUNYARD_EXECUTOR", "did you mean RUNYARD_EXECUTORS?"),
        ("RUNYARD_WORKER_QUEUE", "did you mean RUNYARD_WORKER_QUEUES?"),
        ("RUNYARD_PORT", "did you mean the option --port?"),
        ("RUNYARD_HOST", "did you mean the option --host?"),
        ("RUNYARD__CORE__FERNET", "see docs/reference/settings.md"),
    ],
)
def test_what_is_no_setting_has_a_way_out(name: str, hint: str) -> None:
    assert misspelled({name: "8080"}) == {name: hint}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RUNYARD_DATABASE_URL", "sqlite:///x"),
        ("RUNYARD_API_KEY_FILE", "/key"),
        ("HOME", "/root"),
        ("RUNYARD_PORT", "tcp://10.0.0.1:8080"),
        ("RUNYARD_SERVICE_HOST", "10.0.0.1"),
        ("RUNYARD_API_SERVICE_PORT_HTTP", "80"),
        ("RUNYARD_API_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("RUNYARD_API_PORT", "tcp://10.0.0.1:80"),
    ],
)
def test_settings_and_what_a_cluster_gives_are_passed_over(name: str, value: str) -> None:
    assert misspelled({name: value}) == {}


def test_values_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNYARD_BROKER", "redis://:secret@host")
    with capture_logs() as lines:
        warn()
    assert "RUNYARD_BROKER" in [line["variable"] for line in lines]
    assert "secret" not in str(lines)
