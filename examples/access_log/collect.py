"""Make a day of access log: the same day always gives the same lines.

Stands for what a real pipeline would fetch.  In the afternoon a bad release makes /checkout fail, and /search is slow
whenever many people are about.
"""

import argparse
import json
import math
import os
import random
from pathlib import Path

from place import folder

PATHS = {"/": 30, "/search": 22, "/product": 28, "/cart": 10, "/checkout": 6, "/help": 4}
BAD_RELEASE = range(14 * 60, 16 * 60 + 30)  # minutes of the day


def busy(minute: int) -> float:
    """Return how much is going on: little at four in the morning, most at four in the afternoon."""
    return 1.15 - math.cos((minute - 240) / 1440 * 2 * math.pi)


def line(chance: random.Random, day: str, minute: int) -> str:
    """Return one line: when, who, what, status, milliseconds."""
    path = chance.choices(list(PATHS), list(PATHS.values()))[0]
    wait = chance.lognormvariate(3.4, 0.5) * (1 + (3 * busy(minute) if path == "/search" else 0))
    roll = chance.random()
    status = 404 if roll < 0.02 else 500 if roll < 0.023 else 200
    if path == "/checkout" and minute in BAD_RELEASE and chance.random() < 0.4:
        status, wait = 500, wait * 4
    client = f"192.0.2.{chance.randrange(1, 255)}"
    second = chance.randrange(60)
    return f"{day}T{minute // 60:02}:{minute % 60:02}:{second:02}Z {client} GET {path} {status} {wait:.0f}"


def main() -> None:
    """Write the log, and say where it is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--day", required=True)
    parser.add_argument("--lines", type=int, required=True)
    parser.add_argument("--run", required=True)
    asked = parser.parse_args()

    chance = random.Random(asked.day)
    minutes = sorted(chance.choices(range(1440), [busy(minute) for minute in range(1440)], k=asked.lines))
    path = folder(asked.run) / "access.log"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text("".join(f"{line(chance, asked.day, minute)}\n" for minute in minutes))
    print(f"{asked.lines} lines of {asked.day} in {path} ({path.stat().st_size / 1e6:.1f} MB)")
    Path(os.environ["RUNYARD_OUTPUT"]).write_text(json.dumps({"path": str(path), "lines": asked.lines}))


main()
