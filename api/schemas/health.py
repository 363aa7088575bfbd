"""Health: nothing but a word, because anybody may ask."""

from typing import Literal

from pydantic import Field

from api.schemas.base import Answer


class Health(Answer):
    """How the service is."""

    status: Literal["ok", "unavailable"] = Field(description="`ok`, or `unavailable` with status 503.")
