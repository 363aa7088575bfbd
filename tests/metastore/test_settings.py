"""Database URLs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dag.errors import Invalid
from metastore.settings import DatabaseSettings


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///runyard.db", "runyard.db"),
        ("sqlite:////var/lib/runyard.db", "/var/lib/runyard.db"),
        ("sqlite:////var/a b/100%/x.db", "/var/a b/100%/x.db"),
    ],
)
def test_a_sqlite_url_names_a_file(url: str, path: str) -> None:
    assert DatabaseSettings(url).path == Path(path)
    assert DatabaseSettings(url).dialect == "sqlite"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_a_postgres_url_is_passed_on_as_it_is(scheme: str) -> None:
    rest = "//me:p%40ss@db:5432/runyard?sslmode=require"

    assert DatabaseSettings(f"{scheme}:{rest}").asyncpg == f"postgresql:{rest}"
    assert DatabaseSettings(f"{scheme}:{rest}").dialect == "postgresql"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3cret@db/runyard", "postgresql://me:***@db/runyard"),
        (
            "postgresql://me:s3%40cret@db:5432/runyard?sslmode=require",
            "postgresql://me:***@db:5432/runyard?sslmode=require",
        ),
        ("postgresql://me@db/runyard", "postgresql://me@db/runyard"),
        ("postgresql://db/runyard?user=me&password=s3cret&x=1", "postgresql://db/runyard?user=me&password=***&x=1"),
        ("sqlite:///runyard.db", "sqlite:///runyard.db"),
        ("sqlite:////srv/a@b/runyard.db", "sqlite:////srv/a@b/runyard.db"),
        ("postgresql://me:12/s3cret@db/runyard", "(unreadable)"),
        ("postgresql://me:12?s3cret@db/runyard", "(unreadable)"),
        ("postgresql://me:12#s3cret@db/runyard", "(unreadable)"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    settings = DatabaseSettings(url)

    assert settings.shown == shown
    assert "s3" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite://",
        "sqlite:///",
        "mysql://me:s3cret@db/x",
        "runyard.db",
        "sqlite::memory:",
        "http://[bad",
        "postgresql://me:s3cret@db:port/x",
        "postgresql://me@db:s3cret/x",
        "postgresql://me:s3cret/x@db/x",
        "postgresql://me:s3cret#x@db/x",
    ],
)
def test_any_other_url_is_refused_with_the_way_out_and_without_the_password(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        DatabaseSettings(url)

    (problem,) = refused.value.problems
    assert "sqlite:////" in problem.hint
    assert "s3cret" not in str(refused.value)
