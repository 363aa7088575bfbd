"""Executors by name: entry points of the group ``runyard.executors``, ours among them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from dag.errors import Invalid, Problem
from executors.base import API_VERSION

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from executors.base import Executor, ExecutorConfig, Factory

_GROUP: Final = "runyard.executors"
#: Ours, as pyproject.toml registers them: a checkout that is not installed has no entry points, and reading the
#: metadata of every installed distribution takes 60 ms, which a start with our own executors need not wait for.
_BUILT_IN: Final = {
    "sequential": "executors.sequential:create",
    "local": "executors.local:create",
    "dramatiq": "executors.queues.factory:create_dramatiq",
    "celery": "executors.queues.factory:create_celery",
}


def names() -> list[str]:
    """Return the names of all installed executors."""
    return sorted({*_BUILT_IN, *_entry_points()})


def make(config: ExecutorConfig) -> Executor:
    """Return the executor that is called ``config.name``; raise Invalid with the way out where that cannot be."""
    executor = _factory(config.name)(config)
    if executor.api_version != API_VERSION:
        raise _invalid(
            config.name,
            "executor_version",
            f"The executor {config.name!r} was written for version {executor.api_version} of the executor contract; "
            f"this release speaks version {API_VERSION}.",
            "Install a release of it that fits.",
        )
    return executor


def _factory(name: str) -> Factory:
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return cast("Factory", getattr(import_module(module), attribute))
    point = _entry_points().get(name)
    if point is None:
        raise _invalid(
            name,
            "unknown_executor",
            f"There is no executor {name!r}.",
            f"Installed are: {', '.join(names())}. Another one comes with the package that registers it.",
        )
    try:
        return cast("Factory", point.load())
    except (ImportError, AttributeError) as error:
        raise _invalid(
            name,
            "broken_executor",
            f"The executor {name!r} ({point.value}) cannot be loaded: {error}",
            f"Install what it needs{_extra(point)}.",
        ) from error


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415  40 ms that only other executors need

    return {point.name: point for point in entry_points(group=_GROUP)}


def _extra(point: EntryPoint) -> str:
    distribution = point.dist.name if point.dist is not None else None
    extras = ",".join(point.extras)
    return f", such as {distribution}[{extras}]" if distribution and extras else ""


def _invalid(name: str, code: str, message: str, hint: str) -> Invalid:
    return Invalid([Problem(pointer=f"/executors/{name}", code=code, message=message, hint=hint)])
