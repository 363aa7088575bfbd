"""The settings of a service and of the command line: environment variables ``RUNYARD_*``.

Nothing else reads settings from the environment; ``docs/reference/settings.md`` is written from here.
"""

from __future__ import annotations

import os
import pwd
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dag.fields import Queue  # noqa: TC001  # pydantic reads annotations at run time
from executors.queues.message import PREFIX_PATTERN
from runyard.exits import Exit, Stop
from runyard.home import read_key
from runyard.http_rules import HTTP_ALLOW, HTTP_PORTS, HttpAllow, HttpPorts
from worker.settings import HTTP_PORTS as PORTS

if TYPE_CHECKING:
    from typing import Self

#: Names that may stand in a ``Host`` header without being allowed by anybody.
LOOPBACK = ("localhost", "127.0.0.1", "::1")

Names = Annotated[tuple[str, ...], NoDecode]


_BROKER_URL = (
    "Where the executors `dramatiq` and `celery` and their workers meet: `redis://:password@host:6379/0` (also "
    "`rediss://`, `unix://`) or `amqp://user:password@host:5672/vhost` (also `amqps://`)."
)
_QUEUE_PREFIX = (
    "What the names of queues at the broker begin with. Installations that share a broker need different ones; a "
    "worker needs that of its service."
)
_CODE_DIR = (
    "Where the code of tasks lives: first on `sys.path` of Python tasks, and what a relative `cwd` is relative to. "
    "`code` in the home folder by default."
)
_TASK_PYTHON = "The interpreter that `python` means in a command, and that runs Python tasks. Runyard's own by default."
_LOG_LEVEL = "The least severe level of the service's own log lines: debug, info, warning or error."
_API_URL = "Where the command line and workers find the service."
_API_KEY = (
    "The key that the command line or a worker shows; a worker's needs the scope `work`. `admin.key` in the home "
    "folder by default."
)


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
        description=_CODE_DIR,
    )
    task_python: str = Field(
        default=sys.executable,
        description=_TASK_PYTHON,
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
    broker_url: SecretStr | None = Field(default=None, description=_BROKER_URL)
    queue_prefix: str = Field(default="runyard", pattern=f"^{PREFIX_PATTERN}$", description=_QUEUE_PREFIX)
    worker_key_file: Path | None = Field(
        default=None,
        description="Where the API puts a key for its workers, with the scope `work`; it is made where there is none, "
        "and known from every start on. Nothing is made by default.",
    )
    worker_lease: int = Field(
        default=90,
        ge=5,
        le=3600,
        description="How many seconds a worker, or a scheduler's own host on Postgres, may be silent before what it "
        "runs is given up and started elsewhere. Workers learn theirs from the API, and stop their tasks a little "
        "earlier by themselves.",
    )
    http_allow: HttpAllow = Field(default=(), description=HTTP_ALLOW)
    http_ports: HttpPorts = Field(default=PORTS, description=HTTP_PORTS)
    log_level: str = Field(
        default="info",
        pattern="^(debug|info|warning|error)$",
        description=_LOG_LEVEL,
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

    @field_validator("home", "code_dir", "log_store", "worker_key_file")
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
    def broker(self) -> str | None:
        """The broker, with its password."""
        return None if self.broker_url is None else self.broker_url.get_secret_value()

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.worker_lease)

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


class WorkerSettings(BaseSettings):
    """What a worker is told from outside.  It has no use for a database, and does not read where one is."""

    model_config = SettingsConfigDict(
        env_prefix="RUNYARD_", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    home: Path = Field(
        default_factory=_default_home,
        description="The private folder of the workers of this host: each process has one of its own below `workers`.",
    )
    broker_url: SecretStr | None = Field(default=None, description=_BROKER_URL)
    queue_prefix: str = Field(default="runyard", pattern=f"^{PREFIX_PATTERN}$", description=_QUEUE_PREFIX)
    api_url: str = Field(default="http://127.0.0.1:8080", pattern="^https?://", description=_API_URL)
    api_key: SecretStr | None = Field(default=None, description=_API_KEY)
    api_key_file: Path | None = Field(
        default=None, description="A file with the key that a worker shows, instead of `RUNYARD_API_KEY`."
    )
    worker_queues: Annotated[tuple[Queue, ...], NoDecode] = Field(
        default=("default",),
        min_length=1,
        description="The queues that a worker serves, with commas between. The names are those in the tasks.",
    )
    worker_concurrency: int = Field(
        default_factory=lambda: max(4, os.cpu_count() or 1),
        ge=1,
        le=1000,
        description="How many attempts a worker runs at once. The number of cores by default, at least 4.",
    )
    worker_name: str = Field(
        default_factory=lambda: os.uname().nodename,
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="What a worker is called in lists and logs. The host's name by default.",
    )
    worker_drain: float = Field(
        default=30.0,
        ge=0,
        le=7 * 24 * 3600,
        description="How many seconds running attempts get to end by themselves once a worker was asked to stop. "
        "Then they are stopped, and run again elsewhere.",
    )
    code_dir: Path | None = Field(default=None, description=_CODE_DIR)
    task_python: str = Field(default=sys.executable, description=_TASK_PYTHON)
    http_allow: HttpAllow = Field(default=(), description=HTTP_ALLOW)
    http_ports: HttpPorts = Field(default=PORTS, description=HTTP_PORTS)
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$", description=_LOG_LEVEL)

    @field_validator("worker_queues", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return value

    @field_validator("home", "code_dir", "api_key_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @property
    def code(self) -> Path:
        return self.code_dir or self.home / "code"

    def key(self) -> str:
        """Return the key to show; Stop where there is none."""
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        found = read_key(self.home) if self.api_key_file is None else _read_key_file(self.api_key_file)
        if not found:
            raise Stop(Exit.REFUSED, "The worker has no key for the API.", _KEY_WAY_OUT)
        return found

    @classmethod
    def read(cls, **given: Any) -> Self:
        """Return the settings of the environment, those that are *given* in their place; Stop where they are wrong."""
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            raise Stop(Exit.USAGE, _sentences(cls, error), "see docs/reference/settings.md") from None


_KEY_WAY_OUT = (
    "make one with: runyard keys create workers --scope work; then set RUNYARD_API_KEY, or RUNYARD_API_KEY_FILE to a "
    "file with it"
)


def _read_key_file(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise Stop(
            Exit.USAGE,
            f"RUNYARD_API_KEY_FILE: {path} cannot be read: {why}.",
            "give a file with the key and nothing else",
        ) from None


class ClientSettings(BaseSettings):
    """What the command line is told from outside."""

    model_config = SettingsConfigDict(
        env_prefix="RUNYARD_", extra="ignore", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    home: Path = Field(default_factory=_default_home, description="Where `admin.key` is looked for.")
    api_url: str = Field(
        default="http://127.0.0.1:8080",
        pattern="^https?://",
        description=_API_URL,
    )
    api_key: SecretStr | None = Field(default=None, description=_API_KEY)

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
