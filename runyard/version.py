"""Which release this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """Return the release as its installed metadata says it; a checkout that was never installed has none."""
    try:
        return installed("runyard")
    except PackageNotFoundError:
        return "0+checkout"
