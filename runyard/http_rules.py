"""The two settings that say what ``http`` tasks may reach; a service and a worker both have them."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

HTTP_ALLOW: Final = (
    "What `http` tasks may reach besides public addresses, with commas between: networks (`10.1.0.0/16`, `10.1.2.3`) "
    "and host names. A name opens the loopback and private addresses that it has; other special ones are opened by a "
    "network, and those of metadata services only one by one."
)
HTTP_PORTS: Final = "The ports that `http` tasks may reach, with commas between."


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _judged(value: tuple[str, ...]) -> tuple[str, ...]:
    if value:
        from worker.guard import Rules  # noqa: PLC0415  most installations allow nothing, and need no addresses

        Rules.read(value)
    return value


def _ports(value: tuple[int, ...]) -> tuple[int, ...]:
    for port in value:
        if not 0 < port < 1 << 16:
            raise ValueError(f"{port} is no port; ports are 1 to 65535")
    return value


HttpAllow = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_judged)]
HttpPorts = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_split), AfterValidator(_ports)]
