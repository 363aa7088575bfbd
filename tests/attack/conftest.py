"""The API of the API's own tests."""

from __future__ import annotations

from tests.api.conftest import api

__all__ = ["api"]
