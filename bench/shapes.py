"""DAGs of a shape that several benchmarks run."""

from __future__ import annotations

from typing import Any

_UPSTREAMS = 5


def layers(number: int, width: int, body: dict[str, Any]) -> dict[str, Any]:
    """Return *number* layers of *width* tasks, each of which waits for five of the layer before."""
    tasks: dict[str, Any] = {}
    for layer in range(number):
        for n in range(width):
            upstream = [f"l{layer - 1:03}_{(n + k * 7) % width:03}" for k in range(_UPSTREAMS)] if layer else []
            tasks[f"l{layer:03}_{n:03}"] = body | {"depends_on": upstream}
    return tasks
