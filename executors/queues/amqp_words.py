"""What the codes mean with which a RabbitMQ closes a channel or a connection."""

from __future__ import annotations

from typing import Final

NOT_FOUND: Final = 404
_REFUSED: Final = 403
_PRECONDITION: Final = 406
_RESOURCES: Final = 506
_NOT_ALLOWED: Final = 530
_WORDS: Final = {
    _REFUSED: "its user may not do what Runyard needs",
    _PRECONDITION: "the queue is there with other arguments than Runyard gives it: delete it",
    _RESOURCES: "it has no room for more",
    _NOT_ALLOWED: "it refuses the virtual host",
}


def of(code: int, text: str) -> str:
    """Return what RabbitMQ has said, in words."""
    said = " ".join(text.split())
    if code == _REFUSED and "login" in said.lower():
        return f"it refuses the user name or the password ({said})"
    return f"{_WORDS.get(code, 'it has closed the connection')} ({said})"
