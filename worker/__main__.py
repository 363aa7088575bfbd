"""What a service starts as an agent: ``python -I -S worker/__main__.py SETTINGS``, isolated, without site-packages."""

import os
import sys

# At the end: the standard library comes first, whatever lies beside this package.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100,PTH120  nothing is imported yet
# A UNIX socket needs no TLS; asyncio does without it, and 4 MB and 20 ms are saved.  A remote agent may need it.
if '"remote": true' not in sys.argv[1]:
    sys.modules["ssl"] = None  # type: ignore[assignment]  # None is how an import is refused

from worker.agent import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
