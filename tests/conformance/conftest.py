"""The loop that the service runs on: its transports are none of asyncio's classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import uvloop

from runyard.conformance.plugin import LOOP

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def one_loop() -> Iterator[None]:
    """Close what scenarios run on when the last one has."""
    yield
    LOOP.close()
