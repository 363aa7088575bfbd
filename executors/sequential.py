"""The ``sequential`` executor: ``local`` with one slot; the same agent, the same code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from executors.local import Local

if TYPE_CHECKING:
    from executors.base import ExecutorConfig


def create(config: ExecutorConfig) -> Local:
    """Return the executor ``sequential``."""
    return Local(config, slots=1)
