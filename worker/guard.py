"""Whom an ``http`` task may talk to: every address that a name has is judged, and only a judged one is connected to.

Who triggers a run may choose a part of a URL; that must not open what only this host can reach: itself, its network,
the metadata service of its cloud.  The lists are our own: what Python calls private or global changed between its
versions, and NAT64 of 169.254.169.254 is global to it.

Who starts a worker checks the settings with it, before there is any task.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, Final

from worker.settings import HTTP_PORTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network
    #: ``socket.getaddrinfo``, or what a test has in its place.
    Resolve = Callable[..., Iterable[tuple[Any, ...]]]

_ALLOW: Final = "RUNYARD_HTTP_ALLOW"
_PORTS: Final = "RUNYARD_HTTP_PORTS"

#: What a URL may be made of (RFC 3986), before anything is taken apart: parsers differ over all the rest.
_PLAIN: Final = re.compile(r"[!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]*")
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z]+)://(?P<authority>[^/?#]*)(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?")
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_AUTHORITY: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]@]+))(?::(?P<port>[0-9]{1,5}))?")
_MOST_NAME: Final = 253
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

#: Addresses that hand out credentials of the machine.  A wider network in the setting does not open them.
_METADATA: Final = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # AWS, Google, Azure, Oracle, DigitalOcean, OpenStack and more
            "169.254.169.253", "169.254.170.2", "169.254.170.23",  # AWS: DNS, ECS tasks, EKS pods
            "168.63.129.16",  # Azure, and it looks public
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "fd00:ec2::254", "fd00:ec2::253", "fd00:ec2::23", "fd20:ce::254",  # AWS, EKS, Google
        ),
    )
)  # fmt: skip

#: What each network is.  A name in the setting opens what stands under ``_BY_NAME``; the others take the address.
_BY_NAME: Final = ("a loopback address", "a private address", "a shared address (RFC 6598)", "a unique local address")
_NETWORKS: Final[dict[str, tuple[str, ...]]] = {
    "an unspecified address": ("0.0.0.0/8", "::/128"),
    "a loopback address": ("127.0.0.0/8", "::1/128"),
    "a private address": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    "a shared address (RFC 6598)": ("100.64.0.0/10",),
    "a unique local address": ("fc00::/7",),
    "a link-local address": ("169.254.0.0/16", "fe80::/10"),
    "a site-local address": ("fec0::/10",),
    "a multicast address": ("224.0.0.0/4", "ff00::/8"),
    "a documentation address": (*("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),),
    "a benchmarking address": ("198.18.0.0/15", "2001:2::/48"),
    "an address of a tunnel": (
        *("192.88.99.0/24", "2001::/32", "2002::/16", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96"),
    ),
    "a reserved address": ("192.0.0.0/24", "240.0.0.0/4", "2001::/23", "100::/64", "5f00::/16"),
}
_DENIED: Final = tuple((ip_network(text), kind) for kind, texts in _NETWORKS.items() for text in texts)
_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """A request that is not made; the text says the place, the rule and the way out."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What an operator allows."""

    networks: tuple[Network, ...] = ()
    names: frozenset[str] = frozenset()
    ports: tuple[int, ...] = HTTP_PORTS

    @classmethod
    def read(cls, allow: Iterable[str], ports: Iterable[int] = HTTP_PORTS) -> Rules:
        """Return the rules of networks (``10.1.0.0/16``, ``10.1.2.3``) and host names; raise ValueError for others."""
        networks: list[Network] = []
        names: set[str] = set()
        for entry in allow:
            if _NAME.fullmatch(entry) and not entry.rstrip(".").rpartition(".")[2].isdigit():
                names.add(_folded(entry))
            else:
                networks.append(_network(entry))
        taken = tuple(ports)
        for port in taken:
            if not 0 < port < 1 << 16:
                raise ValueError(f"{port} is no port; ports are 1 to 65535")
        return cls(tuple(networks), frozenset(names), taken)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes."""

    scheme: str
    #: As the resolver, the certificate and the Host header get it: without brackets, without a last dot.
    host: str
    port: int
    #: Path and query.
    resource: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def target(url: str, rules: Rules) -> Target:
    """Take *url* apart, or raise :exc:`Refused`."""
    if not _PLAIN.fullmatch(url):
        raise Refused("http.url holds a character that no URL has; write it percent-encoded")
    found = _URL.fullmatch(url)
    if found is None:
        raise Refused("http.url is no URL of the form https://host/path, or has a # in it, which is never sent")
    scheme = found["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise Refused(f"http.url begins with {scheme}://; only http:// and https:// are requested")
    if "@" in found["authority"]:
        raise Refused("http.url holds a user or a password; pass them by http.headers")
    authority = _AUTHORITY.fullmatch(found["authority"])
    host = (authority["v6"] or authority["name"]) if authority else ""
    if authority is None or not _is_host(host, is_v6=authority["v6"] is not None):
        raise Refused("http.url names no host: a name in its ASCII form, an IPv4 address or an IPv6 one in [brackets]")
    port = int(authority["port"]) if authority["port"] else _DEFAULT_PORTS[scheme]
    if port not in rules.ports:
        raise Refused(
            f"http.url asks for port {port}; http tasks reach the ports "
            f"{', '.join(map(str, rules.ports))} ({_PORTS} on the worker says which)"
        )
    path = found["path"] or "/"
    if any(re.fullmatch(r"(?:\.|%2[eE]){1,2}", part) for part in path.split("/")):
        raise Refused("http.url has a . or .. as a part of its path; write the path that is meant")
    return Target(scheme, _folded(host), port, path + ("" if found["query"] is None else f"?{found['query']}"))


def addresses(to: Target, rules: Rules, resolve: Resolve = socket.getaddrinfo) -> list[Address]:
    """Ask the resolver once; return every address, or raise :exc:`Refused` if only one of them is not allowed."""
    try:
        answers = list(resolve(to.host, to.port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise Refused(f"http.url: {to.host} cannot be resolved: {why}") from None
    found: dict[Address, None] = {}
    for family, _, _, _, place in answers:
        if family in (socket.AF_INET, socket.AF_INET6):
            found[_plain(ip_address(str(place[0]).partition("%")[0]))] = None
    if not found:
        raise Refused(f"http.url: {to.host} has no address")
    for address in found:
        kind = kind_of(address)
        if kind and not _is_opened(address, kind, to.host, rules):
            name = to.host if to.host == str(address) else f"{to.host} is {address}, which"
            way = "that lists exactly this address" if kind in _STRICT else "that lists it"
            raise Refused(
                f"http.url: {name} is {kind}; http tasks reach public addresses, "
                f"and others only by a setting {_ALLOW} {way}"
            )
    return list(found)


def kind_of(address: Address) -> str:
    """Say what kind of address is not public; "" for one that is."""
    address = _plain(address)
    if address in _METADATA:
        return "an address of a metadata service"
    if isinstance(address, IPv6Address) and address in _NAT64:
        inside = kind_of(IPv4Address(int(address) & 0xFFFFFFFF))
        return f"the NAT64 form of {inside}" if inside else ""
    for network, kind in _DENIED:
        if address.version == network.version and address in network:
            return kind
    return "a reserved address" if isinstance(address, IPv6Address) and address not in _UNICAST else ""


_STRICT: Final = ("an address of a metadata service", "the NAT64 form of an address of a metadata service")


def _is_opened(address: Address, kind: str, host: str, rules: Rules) -> bool:
    if any(
        address.version == network.version
        and address in network
        and (kind not in _STRICT or network.num_addresses == 1)
        for network in rules.networks
    ):
        return True
    return host in rules.names and kind in _BY_NAME


def _plain(address: Address) -> Address:
    """Return the IPv4 address that is meant where *address* is one in the clothes of IPv6."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _is_host(text: str, *, is_v6: bool) -> bool:
    if not is_v6:
        return len(text) <= _MOST_NAME and _NAME.fullmatch(text) is not None
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _folded(host: str) -> str:
    return host.removesuffix(".").lower()


def _network(entry: str) -> Network:
    try:
        return ip_network(entry)
    except ValueError as error:
        raise ValueError(f"{entry!r} is neither a host name nor a network such as 10.1.0.0/16: {error}") from None
