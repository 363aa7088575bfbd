"""The executors ``dramatiq`` and ``celery``: which broker it is, and whether what speaks to it is installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dag.errors import Invalid, Problem
from executors.queues.address import Address
from executors.queues.executor import QueueExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from executors.base import ExecutorConfig
    from executors.queues.address import Kind

#: What is asked for by one broker and one library, and how it is installed.
_EXTRAS: Final[dict[tuple[str, Kind], str]] = {
    ("dramatiq", "redis"): "redis",
    ("dramatiq", "rabbitmq"): "rabbitmq",
    ("celery", "redis"): "celery",
    ("celery", "rabbitmq"): "celery",
}
_PACKAGES: Final = frozenset({"dramatiq", "redis", "pika", "celery", "kombu", "amqp", "vine", "billiard"})


def create_dramatiq(config: ExecutorConfig) -> QueueExecutor:
    """Return the executor ``dramatiq``."""
    address, prefix = _read(config)
    with installed("dramatiq", address.kind):
        if address.kind == "redis":
            from executors.queues.redis_medium import RedisMedium  # noqa: PLC0415  an extra

            return QueueExecutor(config.name, RedisMedium(address, prefix), observable=True)
        from executors.queues.rabbit_medium import RabbitMedium  # noqa: PLC0415  an extra

        return QueueExecutor(config.name, RabbitMedium(address, prefix), observable=False)


def create_celery(config: ExecutorConfig) -> QueueExecutor:
    """Return the executor ``celery``."""
    address, prefix = _read(config)
    with installed("celery", address.kind):
        from executors.queues.celery_medium import CeleryMedium  # noqa: PLC0415  an extra

        return QueueExecutor(config.name, CeleryMedium(address, prefix), observable=address.kind == "redis")


def _read(config: ExecutorConfig) -> tuple[Address, str]:
    return Address.read(config.options.get("broker_url")), config.options.get("prefix") or "runyard"


@contextmanager
def installed(library: str, kind: Kind) -> Iterator[None]:
    """Turn an import that fails for want of an extra into Invalid, with what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _PACKAGES:
            raise
        extra = _EXTRAS[library, kind]
        message = f"The executor {library!r} on this broker needs the package {missing!r}, which is not installed."
        hint = f"pip install 'runyard[{extra}]'"
        raise Invalid(
            [Problem(pointer=f"/executors/{library}", code="missing_extra", message=message, hint=hint)]
        ) from None
