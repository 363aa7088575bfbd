"""The documentation page: one file, its style and its script inside, nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Final

_ASSETS: Final = Path(__file__).parent / "assets"


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text("utf-8")


@cache
def page() -> str:
    """Return the page."""
    return _asset("docs.html").replace("/*style*/", _asset("docs.css")).replace("/*script*/", _asset("docs.js"))


@cache
def policy() -> str:
    """Return what the page may do: run exactly its own script, ask this very service, and nothing else."""
    return (
        f"default-src 'none'; style-src {_hash('docs.css')}; script-src {_hash('docs.js')}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(name: str) -> str:
    digest = hashlib.sha256(_asset(name).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
