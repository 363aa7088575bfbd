from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from runyard.exits import Exit, Stop
from runyard.settings import ClientSettings, Settings, WorkerSettings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("RUNYARD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/somebody")


def test_everything_has_a_default() -> None:
    settings = Settings.read()
    assert settings.home == Path("/somebody/.runyard")
    assert settings.url == "sqlite:////somebody/.runyard/runyard.db"
    assert settings.on_sqlite
    assert settings.executors == ("sequential",)
    assert settings.code == Path("/somebody/.runyard/code")
    assert settings.logs == Path("/somebody/.runyard/logs")
    assert settings.allowed_hosts == ()
    assert settings.local_parallelism >= 4


@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
def test_without_home_the_user_database_says_where_it_is(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("HOME") if value is None else monkeypatch.setenv("HOME", value)
    assert Settings.read().home == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".runyard"


def test_a_home_given_on_the_command_line_wins_and_the_rest_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNYARD_HOME", "/elsewhere")
    assert Settings.read(Path("/here")).logs == Path("/here/logs")
    assert Settings.read().logs == Path("/elsewhere/logs")


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNYARD_EXECUTORS", "local, sequential,")
    monkeypatch.setenv("RUNYARD_ALLOWED_HOSTS", "runyard.example.com")
    settings = Settings.read()
    assert settings.executors == ("local", "sequential")
    assert settings.allowed_hosts == ("runyard.example.com",)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        pytest.param("RUNYARD_EXECUTORS", ",", "name at least one executor", id="no executor"),
        pytest.param("RUNYARD_EXECUTORS", "local,local", "each executor can be named once", id="an executor twice"),
        pytest.param("RUNYARD_LOCAL_PARALLELISM", "0", "greater than or equal to 1", id="no slot"),
        pytest.param("RUNYARD_LOCAL_PARALLELISM", "many", "valid integer", id="not a number"),
        pytest.param("RUNYARD_LOG_STORE", "s3://bucket", "a folder only", id="a log store of a later release"),
        pytest.param("RUNYARD_HTTP_ALLOW", "10.1.2.3/16", "'10.1.2.3/16' is neither", id="a network with host bits"),
        pytest.param("RUNYARD_HTTP_ALLOW", "https://x/", "'https://x/' is neither", id="a URL as a host"),
        pytest.param("RUNYARD_HTTP_PORTS", "80,70000", "70000 is no port", id="no port"),
        pytest.param("RUNYARD_HTTP_PORTS", "http", "valid integer", id="the name of a port"),
        pytest.param("RUNYARD_LOG_LEVEL", "loud", "pattern", id="an unknown level"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Stop) as stop:
        Settings.read()
    assert stop.value.code is Exit.USAGE
    assert stop.value.message.startswith(f"{name}: ")
    assert said in stop.value.message


def test_what_http_tasks_may_reach_is_checked_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings.read().http_allow, Settings.read().http_ports) == ((), (80, 443, 8080, 8443))
    monkeypatch.setenv("RUNYARD_HTTP_ALLOW", "10.1.0.0/16, ::1,wiki.internal")
    monkeypatch.setenv("RUNYARD_HTTP_PORTS", "80,9200")
    for settings in (Settings.read(), WorkerSettings.read()):
        assert settings.http_allow == ("10.1.0.0/16", "::1", "wiki.internal")
        assert settings.http_ports == (80, 9200)


def test_passwords_and_keys_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNYARD_DATABASE_URL", "postgresql://u:hunter2@db/runyard")
    monkeypatch.setenv("RUNYARD_API_KEY", "hunter2")
    assert "hunter2" not in repr(Settings.read())
    assert "hunter2" not in repr(ClientSettings.read())
    assert Settings.read().url == "postgresql://u:hunter2@db/runyard"
    assert not Settings.read().on_sqlite


def test_the_command_line_finds_a_service_on_this_host() -> None:
    settings = ClientSettings.read()
    assert settings.api_url == "http://127.0.0.1:8080"
    assert settings.api_key is None


def test_an_api_url_must_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNYARD_API_URL", "127.0.0.1:8080")
    with pytest.raises(Stop, match="RUNYARD_API_URL: "):
        ClientSettings.read()
