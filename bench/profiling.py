"""Where the time goes: py-spy beside the processes of a service, and the top of what it saw.

py-spy is no dependency of the project: put it on the PATH from an environment of its own.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.running import Pids

_RATE = 200
_TOP = 25


@contextmanager
def profiled(folder: Path, name: str, pids: Pids) -> Iterator[None]:
    """Record each process until the end, then print where it was; what is recorded runs slower."""
    found = shutil.which("py-spy")
    if found is None:
        raise SystemExit("--profile needs py-spy on the PATH (pip install py-spy in an environment of its own)")
    folder.mkdir(parents=True, exist_ok=True)
    files = {part: folder / f"{name}-{part}.stacks" for part in ("service", "agent", "zygote")}
    how = ("-r", str(_RATE), "-d", "3600", "-t", "-f", "raw")
    recorders = [
        subprocess.Popen(
            [found, "record", "-p", str(getattr(pids, part)), *how, "-o", file],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for part, file in files.items()
    ]
    try:
        yield
    finally:
        for recorder in recorders:
            recorder.send_signal(signal.SIGINT)
        for recorder in recorders:
            recorder.wait(30)
        for part, file in files.items():
            if file.exists():
                print(f"\n{part}: {file}\n{top(file)}", file=sys.stderr)


def top(file: Path) -> str:
    """Return the functions that were seen most: with what they called, and by themselves."""
    within: Counter[str] = Counter()
    itself: Counter[str] = Counter()
    total = 0
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        total += int(count)
        itself[frames[-1]] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    if not total:
        return "  never busy"
    lines = [f"  {total} samples", "  with what it called:"]
    lines += [f"  {100 * count / total:5.1f} %  {frame}" for frame, count in within.most_common(_TOP)]
    lines.append("  by itself:")
    lines += [f"  {100 * count / total:5.1f} %  {frame}" for frame, count in itself.most_common(_TOP)]
    return "\n".join(lines)
