"""Variables that look like settings and are none: a misspelled one would be obeyed by nobody, and nobody would know."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

import structlog

from runyard.settings import ClientSettings, Settings, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

log = structlog.get_logger(__name__)

_PREFIX: Final = "RUNYARD_"
#: Kubernetes gives these to every pod beside a service that is called runyard.
_OF_A_CLUSTER: Final = re.compile(r".*_SERVICE_(HOST|PORT(_\w+)?)|.*_PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?")
#: No variable, because a cluster gives one of that name.
_OPTIONS: Final = {"RUNYARD_HOST": "the option --host", "RUNYARD_PORT": "the option --port"}


def misspelled(environ: Mapping[str, str]) -> dict[str, str]:
    """Return which variables are meant for Runyard and are not known to it, with a way out for each."""
    known = [
        f"{_PREFIX}{field}".upper()
        for each in (Settings, WorkerSettings, ClientSettings)
        for field in each.model_fields
    ]
    found: dict[str, str] = {}
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or name in known or _is_of_a_cluster(name, environ[name]):
            continue
        meant = _OPTIONS.get(name) or next(iter(get_close_matches(name, known, n=1, cutoff=0.8)), None)
        found[name] = f"did you mean {meant}?" if meant else "see docs/reference/settings.md"
    return found


def _is_of_a_cluster(name: str, value: str) -> bool:
    return bool(_OF_A_CLUSTER.fullmatch(name)) and (name != "RUNYARD_PORT" or "://" in value)


def warn() -> None:
    """Log a line for each of them in the environment; values are not repeated, for they may be secrets."""
    for name, hint in misspelled(os.environ).items():
        log.warning("not a setting", variable=name, hint=hint)
