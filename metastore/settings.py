"""Where the metastore is: one URL, and what each driver needs to hear of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, unquote, urlsplit

from dag.errors import Invalid, Problem

_SQLITE: Final = re.compile(r"sqlite(\+pysqlite)?:///(?P<path>.+)\Z", re.DOTALL)
_POSTGRES: Final = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """A database URL: ``sqlite:///relative``, ``sqlite:////absolute`` or ``postgresql://user:password@host/name``."""

    url: str

    def __post_init__(self) -> None:
        if _SQLITE.match(self.url) is None and not _is_postgres(self.url):
            raise Invalid(
                [
                    Problem(
                        pointer="",
                        code="database_url",
                        message=f"The database URL {self.shown!r} is neither SQLite nor Postgres.",
                        hint="Write sqlite:////absolute/path/runyard.db or postgresql://user:password@host:5432/name.",
                    )
                ]
            )

    def __repr__(self) -> str:
        return f"DatabaseSettings({self.shown!r})"

    @property
    def dialect(self) -> Literal["sqlite", "postgresql"]:
        return "sqlite" if self.url.startswith("sqlite") else "postgresql"

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        found = _SQLITE.match(self.url)
        if found is None:
            raise ValueError(self.shown)
        return Path(found["path"])

    @property
    def asyncpg(self) -> str:
        """The URL as asyncpg reads it."""
        return re.sub(r"^\w+(\+asyncpg)?:", "postgresql:", self.url)

    @property
    def shown(self) -> str:
        """The URL without its password, for logs and messages."""
        if _SQLITE.match(self.url) is not None:
            return self.url
        try:
            parts = urlsplit(self.url)
            _ = parts.port
        except ValueError:  # what stands there for a port may be a part of a password
            return "(unreadable)"
        if "@" in parts.path + parts.query + parts.fragment:  # of a password with a / or ? or # in it
            return "(unreadable)"
        parts = parts._replace(query=re.sub(r"(?i)(password=)[^&]*", r"\1***", parts.query))
        if "@" not in parts.netloc:
            return parts.geturl() if parts.query else self.url
        user, _, host = parts.netloc.rpartition("@")
        name = quote(unquote(user.partition(":")[0]))
        return parts._replace(netloc=f"{name}:***@{host}" if ":" in user else f"{name}@{host}").geturl()


def _is_postgres(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is no number, brackets that do not close
        return False
    return parts.scheme in _POSTGRES and port != 0
