"""The twelve trigger rules, written again from the table of the document's reference.

Each is given the states of all direct upstreams, ``None`` for one that has not ended, and says ``run``, ``skip``,
``upstream_failed`` or ``wait``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FAILED: Final = ("failed", "cancelled")
BROKEN: Final = ("failed", "cancelled", "upstream_failed")


def verdict(rule: str, upstreams: Sequence[str | None]) -> str:
    """Return what *rule* says about a task whose upstreams are in these states."""
    return _RULES[rule](upstreams) if upstreams else "run"


def _any(upstreams: Sequence[str | None], *states: str) -> bool:
    return any(state in states for state in upstreams)


def _open(upstreams: Sequence[str | None]) -> bool:
    return None in upstreams


def _all_success(ups: Sequence[str | None]) -> str:
    if _any(ups, *BROKEN):
        return "upstream_failed"
    if _open(ups):
        return "wait"
    return "skip" if "skipped" in ups else "run"


def _all_failed(ups: Sequence[str | None]) -> str:
    if _any(ups, "success", "skipped"):
        return "skip"
    return "wait" if _open(ups) else "run"


def _all_done(ups: Sequence[str | None]) -> str:
    return "wait" if _open(ups) else "run"


def _all_done_min_one_success(ups: Sequence[str | None]) -> str:
    if _open(ups):
        return "wait"
    if "success" in ups:
        return "run"
    return "upstream_failed" if _any(ups, *BROKEN) else "skip"


def _one_success(ups: Sequence[str | None]) -> str:
    if "success" in ups:
        return "run"
    if _open(ups):
        return "wait"
    return "upstream_failed" if _any(ups, *BROKEN) else "skip"


def _one_failed(ups: Sequence[str | None]) -> str:
    if _any(ups, *BROKEN):
        return "run"
    return "wait" if _open(ups) else "skip"


def _one_done(ups: Sequence[str | None]) -> str:
    if _any(ups, "success", *FAILED):
        return "run"
    return "wait" if _open(ups) else "skip"


def _none_failed(ups: Sequence[str | None]) -> str:
    if _any(ups, *BROKEN):
        return "upstream_failed"
    return "wait" if _open(ups) else "run"


def _none_failed_min_one_success(ups: Sequence[str | None]) -> str:
    if _any(ups, *BROKEN):
        return "upstream_failed"
    if _open(ups):
        return "wait"
    return "run" if "success" in ups else "skip"


def _none_skipped(ups: Sequence[str | None]) -> str:
    if "skipped" in ups:
        return "skip"
    return "wait" if _open(ups) else "run"


def _all_skipped(ups: Sequence[str | None]) -> str:
    if _any(ups, "success", *BROKEN):
        return "skip"
    return "wait" if _open(ups) else "run"


def _always(_: Sequence[str | None]) -> str:
    return "run"


_RULES: Final[dict[str, Callable[[Sequence[str | None]], str]]] = {
    "all_success": _all_success,
    "all_failed": _all_failed,
    "all_done": _all_done,
    "all_done_min_one_success": _all_done_min_one_success,
    "one_success": _one_success,
    "one_failed": _one_failed,
    "one_done": _one_done,
    "none_failed": _none_failed,
    "none_failed_min_one_success": _none_failed_min_one_success,
    "none_skipped": _none_skipped,
    "all_skipped": _all_skipped,
    "always": _always,
}
