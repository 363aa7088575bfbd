"""The settings of a service and of the command line: environment variables ``RUNYARD_*``.

Nothing else in the repository reads the environment; ``docs/reference/settings.md`` is written from here.
"""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from runyard.exits import Exit, Stop

if TYPE_CHECKING:
    from typing import Self

#: Names that may stand in a ``Host`` header without being allowed by anybody.
LOOPBACK = ("localhost", "127.0.0.1", "::1")

Names = Annotated[tuple[str, ...], NoDecode]


def _default_home() -> Path:
    # An empty HOME is none: Path.home() would say "/".
    return Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir) / ".runyard"


class Settings(BaseSettings):
    """What a service is told from outside."""

    model_config = SettingsConfigDict(
        env_prefix="RUNYARD_", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    home: Path = Field(
        default_factory=_default_home,
        description="The private folder of the service: database, admin key, user code, logs. `~/.runyard` by default.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="`postgresql://user:password@host/name` or `sqlite:///path`. The default is `runyard.db` in the "
        "home folder.",
    )
    executors: Names = Field(
        default=("sequential",),
        description="Names of the active executors, with commas between; the first one is the default of every task.",
    )
    local_parallelism: int = Field(
        default_factory=lambda: max(4, os.cpu_count() or 1),
        ge=1,
        le=1000,
        description="How many attempts the `local` executor runs at once. The number of cores by default, at least 4.",
    )
    code_dir: Path | None = Field(
        default=None,
        description="Where the code of tasks lives: first on `sys.path` of Python tasks, and what a relative `cwd` is "
        "relative to. `code` in the home folder by default.",
    )
    task_python: str = Field(
        default=sys.executable,
        description="The interpreter that `python` means in a command, and that runs Python tasks. Runyard's own by "
        "default.",
    )
    log_store: Path | None = Field(
        default=None,
        description="The folder of the attempts' logs. `logs` in the home folder by default. An API and schedulers "
        "that have different homes must be given one folder that they share.",
    )
    allowed_hosts: Names = Field(
        default=(),
        description="More names that a `Host` or `Origin` header may say, with commas between. Loopback names always "
        "may. Without this setting the service listens on loopback addresses only.",
    )
    log_level: str = Field(
        default="info",
        pattern="^(debug|info|warning|error)$",
        description="The least severe level of the service's own log lines: debug, info, warning or error.",
    )

    @field_validator("executors", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("executors")
    @classmethod
    def _some_executor(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one executor")
        if len(set(value)) != len(value):
            raise ValueError("each executor can be named once")
        return value

    @field_validator("log_store", mode="before")
    @classmethod
    def _a_folder(cls, value: object) -> object:
        if isinstance(value, str) and "://" in value:
            if not value.startswith("file://"):
                raise ValueError("this release stores logs in a folder only: give a path")
            return value.removeprefix("file://")
        return value

    @field_validator("home", "code_dir", "log_store")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @property
    def url(self) -> str:
        """The database, with its password."""
        if self.database_url is None:
            return f"sqlite:///{self.home / 'runyard.db'}"
        return self.database_url.get_secret_value()

    @property
    def on_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @property
    def code(self) -> Path:
        return self.code_dir or self.home / "code"

    @property
    def logs(self) -> Path:
        return self.log_store or self.home / "logs"

    @classmethod
    def read(cls, home: Path | None = None) -> Self:
        """Return the settings of the environment, with *home* instead of its own; Stop where they are wrong."""
        try:
            return cls() if home is None else cls(home=home)
        except ValidationError as error:
            raise Stop(Exit.USAGE, _sentences(cls, error), "see docs/reference/settings.md") from None


class ClientSettings(BaseSettings):
    """What the command line is told from outside."""

    model_config = SettingsConfigDict(
        env_prefix="RUNYARD_", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    home: Path = Field(default_factory=_default_home, description="Where `admin.key` is looked for.")
    api_url: str = Field(
        default="http://127.0.0.1:8080",
        pattern="^https?://",
        description="Where the command line finds the service.",
    )
    api_key: SecretStr | None = Field(
        default=None, description="The key that the command line shows. `admin.key` in the home folder by default."
    )

    @classmethod
    def read(cls) -> Self:
        """Return the settings of the environment; Stop where they are wrong."""
        try:
            return cls()
        except ValidationError as error:
            raise Stop(Exit.USAGE, _sentences(cls, error), "see docs/reference/settings.md") from None


def _sentences(settings: type[BaseSettings], error: ValidationError) -> str:
    prefix = settings.model_config.get("env_prefix", "")
    return "; ".join(
        f"{prefix}{'_'.join(str(part) for part in one['loc'][:1]).upper()}: {one['msg'].removeprefix('Value error, ')}"
        for one in error.errors()
    )
