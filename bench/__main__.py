"""All benchmarks, one after the other.

python -m bench
"""

from __future__ import annotations

import sys
from dataclasses import replace

from bench import chain, crash, fanout, machine, queues, singles, start, triggers
from bench.command import options
from bench.figures import Report, show

asked, form = options("python -m bench", databases="both")
reports: list[Report] = []
try:
    for benchmark in (machine, start, chain, fanout, triggers, singles, queues, crash):
        print(f"{benchmark.__name__} …", file=sys.stderr, flush=True)
        # Many kills are in one loop already.
        reports += benchmark.measure(replace(asked, repeat=1) if benchmark is crash else asked)
finally:
    show(reports, form)
