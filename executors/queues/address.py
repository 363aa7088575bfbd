"""Where the broker is: an URL that was looked at once, before anybody connects, and that can be shown to people."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from dag.errors import Invalid, Problem

if TYPE_CHECKING:
    from urllib.parse import SplitResult

#: The setting that says it, and the place of every problem with it.
PLACE: Final = "RUNYARD_BROKER_URL"

Kind = Literal["redis", "rabbitmq"]

_KINDS: Final[dict[str, Kind]] = {
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
}
_EXAMPLES: Final = "redis://:password@host:6379/0 or amqp://user:password@host:5672/vhost"
_ESCAPE: Final = "In names and passwords write %2F for /, %3A for :, %40 for @, %3F for ?, %23 for # and %25 for %."
#: A host as it stands in an URL; IPv6 addresses have brackets there.
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?")
#: Shorter secrets would turn an error text into dots, and protect nothing.
_SHORTEST_SECRET: Final = 4


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's URL."""

    url: str = field(repr=False)
    kind: Kind
    #: The URL without its password and its options.
    shown: str
    _secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def read(cls, url: str | None) -> Address:
        """Return the address that *url* is; raise Invalid, without any part of a password, where it is none."""
        if not url:
            raise wrong("The executor has no broker.", f"Set it, such as {_EXAMPLES}.")
        if not url.isprintable() or " " in url:
            raise wrong("It has blanks, line ends or other characters that no URL has.", "Remove them.")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # its text quotes what may be a part of the password
            raise wrong("It is not an URL: the part between // and the next / cannot be read.", _ESCAPE) from None
        kind = _KINDS.get(parts.scheme)
        if kind is None:
            raise wrong(
                "It names no kind of broker that Runyard speaks to.",
                f"It begins with redis://, rediss://, unix://, amqp:// or amqps://, such as {_EXAMPLES}.",
            )
        if parts.fragment:
            raise wrong("It has a # in it, where an URL ends.", _ESCAPE)
        _check_place(parts, port, kind)
        return cls(url, kind, _shown(parts, port), _secrets(parts))

    def scrub(self, text: str) -> str:
        """Return *text* without this URL's password, wherever a library has put it."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def wrong(message: str, hint: str) -> Invalid:
    return Invalid([Problem(pointer=PLACE, code="broker_url", message=message, hint=hint)])


def _check_place(parts: SplitResult, port: int | None, kind: Kind) -> None:
    """See that every part says what it seems to: the libraries take the half of a wrong one, and keep silent."""
    if parts.scheme == "unix":
        if not parts.path.strip("/") or parts.hostname:
            raise wrong("It names no socket.", "Write three slashes, such as unix:///run/redis/redis.sock?db=0.")
        return
    if not parts.hostname or not _HOST.fullmatch(parts.hostname) or port == 0:
        raise wrong("It names no host, or one that cannot be.", f"Such as {_EXAMPLES}. {_ESCAPE}")
    if kind == "redis":
        if not re.fullmatch(r"/?|/[0-9]{1,5}", parts.path):
            raise wrong("Behind the host of a Redis stands the number of a database.", "Such as /0, or nothing.")
    elif "/" in parts.path[1:]:
        raise wrong(
            "The virtual host has a / in it.", "Write %2F for it. The one that is called / is /%2F, or nothing."
        )
    elif parts.username is not None and parts.password is None:
        raise wrong("It has a user name and no password.", f"Such as {_EXAMPLES}.")


def _shown(parts: SplitResult, port: int | None) -> str:
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{host}{f':{port}' if port else ''}{parts.path}"


def _secrets(parts: SplitResult) -> tuple[str, ...]:
    found = [parts.password or ""]
    found += [value for name, value in parse_qsl(parts.query) if "password" in name or "ssl" in name]
    spellings = {spelling for one in found for spelling in (one, unquote(one))}
    return tuple(sorted((one for one in spellings if len(one) >= _SHORTEST_SECRET), key=len, reverse=True))
