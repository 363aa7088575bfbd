"""All benchmarks, one after the other, or those that are named.

python -m bench
python -m bench chain flows
"""

from __future__ import annotations

import sys
import time
import traceback
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from bench.command import options
from bench.figures import Report, show

if TYPE_CHECKING:
    from bench.command import Options

#: Those of the service alone, of workers, of large things, beside others; what takes longest comes last.
NAMES = (
    "machine",
    "start",
    "chain",
    "fanout",
    "triggers",
    "singles",
    "queues",
    "heartbeats",
    "large",
    "lists",
    "flows",
    "crash",
    "faults",
)
#: Many kills are in one loop already, and a heartbeat's figure is an average over half a minute.
_ONCE = ("crash", "heartbeats")


def _measure(name: str, asked: Options) -> list[Report]:
    """Return the reports of one benchmark; what goes wrong in it is one of them, and hides nobody else's."""
    began = time.monotonic()
    print(f"{name} …", file=sys.stderr, flush=True)
    try:
        found = list(import_module(f"bench.{name}").measure(replace(asked, repeat=1) if name in _ONCE else asked))
    except Exception as error:  # noqa: BLE001  # told with its trace, and again at the end by the exit code
        traceback.print_exc()
        failed = Report(name)
        failed.note(f"FAILED: {type(error).__name__}: {error}")
        return [failed]
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure, print everything, and end with 1 when a benchmark could not be finished."""
    asked, form = options("python -m bench", databases="both", names=NAMES)
    reports: list[Report] = []
    try:
        for name in asked.only or NAMES:
            reports += _measure(name, asked)
    finally:
        show(reports, form)
    sys.stdout.flush()
    failed = [report.benchmark for report in reports if not report.figures]
    missed = [f"{report.title}: {name}" for report in reports for name in report.missed()]
    for each in missed:
        print(f"NOT reached: {each}", file=sys.stderr)
    if failed:
        sys.exit(f"could not be finished: {', '.join(failed)}")


if __name__ == "__main__":
    main()
