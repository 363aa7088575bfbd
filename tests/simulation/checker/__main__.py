"""``python -m tests.simulation.checker HISTORY.jsonl``: print what is wrong.

Ends with 1 where something is, with 2 where it is no history.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.simulation.checker import check
from tests.simulation.checker.history import NotAHistory, parse


def main(arguments: list[str]) -> int:
    """Check every file that is named."""
    if not arguments:
        sys.stderr.write(__doc__)
        return 2
    wrong = False
    for name in arguments:
        try:
            report = check(parse(Path(name)))
        except (NotAHistory, OSError) as error:
            sys.stderr.write(f"{name}: {error}\n")
            return 2
        sys.stdout.write(f"{name}: {report}\n" if len(arguments) > 1 else f"{report}\n")
        wrong = wrong or bool(report.total)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
