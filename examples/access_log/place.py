"""Where a run keeps its big file.  Outputs are for results; what is big is passed by its path."""

import hashlib
import tempfile
from pathlib import Path


def folder(run_id: str) -> Path:
    """Return the folder of one run; the same answer in every task of it."""
    return Path(tempfile.gettempdir()) / f"runyard-access-log-{hashlib.sha256(run_id.encode()).hexdigest()[:16]}"
