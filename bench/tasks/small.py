"""The user code of the Python benchmarks: what a service loads from its RUNYARD_CODE_DIR."""

from __future__ import annotations

import time


def step(number: int) -> int:
    """A small function with an argument and an output."""
    return number + 1


def stamp() -> None:
    """Write the clock as the body begins and as it ends, each in nanoseconds."""
    began = time.time_ns()
    print(began, time.time_ns())


def fib(number: int) -> int:
    """Work for the processor, and nothing but that."""
    return number if number < 2 else fib(number - 1) + fib(number - 2)
