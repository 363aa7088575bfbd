"""Nothing that is not public gets through, in whatever clothes it comes."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.guard import Refused, Rules, Target, addresses, kind_of, target

OPEN = Rules()

#: Addresses that nobody's task may reach by itself, each with a word of why.
HOSTILE = {
    "0.0.0.0": "unspecified",  # noqa: S104  nothing is bound
    "0.1.2.3": "unspecified",
    "10.0.0.1": "private",
    "10.255.255.255": "private",
    "100.64.0.1": "shared",
    "100.127.255.254": "shared",
    "100.100.100.200": "metadata",
    "127.0.0.1": "loopback",
    "127.8.9.10": "loopback",
    "168.63.129.16": "metadata",
    "169.254.0.1": "link-local",
    "169.254.169.254": "metadata",
    "169.254.170.2": "metadata",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.8": "reserved",
    "192.0.0.192": "metadata",
    "192.0.2.1": "documentation",
    "192.88.99.1": "tunnel",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarking",
    "198.19.255.255": "benchmarking",
    "198.51.100.7": "documentation",
    "203.0.113.9": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::2": "tunnel",
    "100::1": "reserved",
    "64:ff9b:1::a00:1": "tunnel",
    "2001::1": "tunnel",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "tunnel",
    "2001:1::1": "reserved",
    "2001:2::1": "benchmarking",
    "2001:10::1": "reserved",
    "2001:db8::1": "documentation",
    "2002:a9fe:a9fe::1": "tunnel",
    "2002:808:808::1": "tunnel",
    "3fff::1": "documentation",
    "4000::1": "reserved",
    "5f00::1": "reserved",
    "fc00::1": "unique local",
    "fd00:ec2::254": "metadata",
    "fd20:ce::254": "metadata",
    "fdff::1": "unique local",
    "fe80::1": "link-local",
    "fe80::a9fe:a9fe": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
}
PUBLIC = ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2001:4860::8888"]


def clothes(text: str) -> list[str]:
    """Every way to write an address as the host of a URL."""
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        return [f"[{address}]", f"[{address.exploded.upper()}]"]
    a, b, c, d = address.packed
    number = int(address)
    tail = f"{number >> 16:x}:{number & 0xFFFF:x}"
    return [
        text,
        f"{text}.",
        str(number),
        hex(number),
        f"0{number:o}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a}.{(b << 16) + (c << 8) + d}",
        f"{a}.{b}.{(c << 8) + d}",
        f"0x{a:x}.{b}.0{c:o}.{d}",
        f"[::ffff:{text}]",
        f"[::ffff:{tail}]",
        f"[::{text}]",
        f"[::ffff:0:{text}]",
        f"[64:ff9b::{text}]",
        f"[64:ff9b::{tail}]",
        f"[64:ff9b:1::{tail}]",
        f"[2002:{tail}::]",
        f"[2001:0:{tail}::]",
        f"[2001::{(number ^ 0xFFFFFFFF) >> 16:x}:{(number ^ 0xFFFFFFFF) & 0xFFFF:x}]",
    ]


CORPUS = [f"http://{host}/latest" for text in HOSTILE for host in clothes(text)]


def test_the_corpus_is_not_small() -> None:
    assert len(set(CORPUS)) > 500


def test_none_of_the_corpus_gets_through() -> None:
    through = []
    for url in CORPUS:
        try:
            through.append((url, addresses(target(url, OPEN), OPEN)))
        except Refused as error:
            assert "http.url" in str(error)  # noqa: PT017  which of a thousand it was is what matters
    assert through == []


def resolver(*found: str) -> tuple[Any, list[str]]:
    """A resolver that answers *found*, and the list of what it was asked."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        return [
            (socket.AF_INET6 if ":" in text else socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port))
            for text in found
        ]

    return resolve, asked


NAMED = target("https://evil.example/x", OPEN)


@pytest.mark.parametrize(("text", "kind"), HOSTILE.items())
def test_a_name_with_such_an_address_is_refused_and_told_why(text: str, kind: str) -> None:
    for found in ([text], ["8.8.8.8", text], [text, "2606:4700::1111"]):
        resolve, asked = resolver(*found)
        with pytest.raises(Refused, match=f"evil.example is {text}.* is an? .*{kind}.*RUNYARD_HTTP_ALLOW"):
            addresses(NAMED, OPEN, resolve)
        assert asked == ["evil.example"]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_reached(text: str) -> None:
    assert [str(one) for one in addresses(NAMED, OPEN, resolver(text)[0])] == [text]


@pytest.mark.parametrize(
    ("text", "meant"), [("::ffff:8.8.8.8", "8.8.8.8"), ("64:ff9b::808:808", "64:ff9b::808:808"), ("8.8.8.8", "8.8.8.8")]
)
def test_a_public_address_in_other_clothes_is_connected_to_as_it_was_judged(text: str, meant: str) -> None:
    assert [str(one) for one in addresses(NAMED, OPEN, resolver(text, text)[0])] == [meant]


def test_every_address_is_returned_once_in_the_resolvers_order() -> None:
    found = addresses(NAMED, OPEN, resolver("2606:4700::1111", "1.1.1.1", "2606:4700::1111")[0])
    assert [str(one) for one in found] == ["2606:4700::1111", "1.1.1.1"]


def test_a_zone_is_no_way_around() -> None:
    for text, kind in (("fe80::1%eth0", "link-local"), ("fd00:ec2::254%2", "metadata")):
        with pytest.raises(Refused, match=kind):
            addresses(NAMED, Rules.read(["fd00::/8"]), resolver(text)[0])


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_python_calls_special_is_refused_too(address: IPv4Address | IPv6Address) -> None:
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address in IPv6Network("64:ff9b::/96")):
        return
    special = address.is_private or address.is_reserved or address.is_multicast or address.is_unspecified
    if special or address.is_loopback or address.is_link_local or not address.is_global:
        assert kind_of(address)


@pytest.mark.parametrize(
    ("allow", "text", "opened"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", True),  # public anyway
        ("10.0.0.0/16", "10.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
        ("fd00::/8", "fd12::1", True),
        ("0.0.0.0/0", "127.0.0.1", True),
        ("0.0.0.0/0", "169.254.169.254", False),
        ("169.254.0.0/16", "169.254.1.1", True),
        ("169.254.0.0/16", "169.254.169.254", False),
        ("169.254.169.254", "169.254.169.254", True),
        ("fd00::/8", "fd00:ec2::254", False),
        ("100.64.0.0/10", "100.100.100.200", False),
        ("64:ff9b::/96", "64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::/96", "64:ff9b::a00:1", True),
        ("evil.example", "127.0.0.1", True),
        ("EVIL.example.", "10.0.0.1", True),
        ("evil.example", "fd12::1", True),
        ("evil.example", "169.254.1.1", False),
        ("evil.example", "169.254.169.254", False),
        ("evil.example", "0.0.0.0", False),  # noqa: S104  nothing is bound
        ("evil.example", "224.0.0.1", False),
        ("sub.evil.example", "127.0.0.1", False),
        ("example", "127.0.0.1", False),
    ],
)
def test_an_operator_opens_what_the_setting_lists_and_no_more(allow: str, text: str, opened: bool) -> None:  # noqa: FBT001  a column of the table
    rules = Rules.read([allow])
    resolve, _ = resolver(text)
    if opened:
        assert addresses(NAMED, rules, resolve)
    else:
        with pytest.raises(Refused, match="RUNYARD_HTTP_ALLOW"):
            addresses(NAMED, rules, resolve)


@pytest.mark.parametrize(
    "entry", ["10.0.0.1/8", "10.0.0.0/33", "127.1", "2130706433", "a b", "*.x", "http://x", "", "x/8"]
)
def test_a_wrong_entry_of_the_setting_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match=r"neither a host name nor a network") as wrong:
        Rules.read([entry])
    assert repr(entry) in str(wrong.value)


def test_a_wrong_port_of_the_setting_is_named() -> None:
    with pytest.raises(ValueError, match="0 is no port"):
        Rules.read([], [80, 0])


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://x.example", Target("https", "x.example", 443, "/")),
        ("HTTP://X.Example.:8080/a?b=c", Target("http", "x.example", 8080, "/a?b=c")),
        ("http://x?y", Target("http", "x", 80, "/?y")),
        ("http://x/?", Target("http", "x", 80, "/?")),
        ("http://[2606:4700::1111]:8443/%2e%2E.x/...", Target("http", "2606:4700::1111", 8443, "/%2e%2E.x/...")),
        ("http://under_score.x-y/a//b;c@d:e", Target("http", "under_score.x-y", 80, "/a//b;c@d:e")),
    ],
)
def test_a_url_is_taken_apart(url: str, wanted: Target) -> None:
    assert target(url, OPEN) == wanted


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://x.example:443/", "x.example"),
        ("https://x.example:80/", "x.example:80"),
        ("http://x.example:80/", "x.example"),
        ("https://[2606:4700::1111]:8443/", "[2606:4700::1111]:8443"),
    ],
)
def test_the_host_header_names_a_port_that_is_not_the_usual_one(url: str, authority: str) -> None:
    assert target(url, OPEN).authority == authority


@pytest.mark.parametrize(
    ("url", "why"),
    [
        *[(url, "no URL|only http") for url in ("x.example", "//x.example/", "", "http:/x", "http:x", "file:///etc")],
        *[(f"{scheme}://x/", "only http") for scheme in ("ftp", "gopher", "file", "dict", "ws", "HTTPSS")],
        *[(url, "user or a password") for url in ("http://u@x/", "http://u:p@x/", "http://x:80@y/", "http://@x/")],
        *[(url, "no URL") for url in ("http://x/#a", "http://x#@y/")],
        *[(f"http://{host}/", "character") for host in ("b\u00fccher.example", "x y", "x\ty", "x\r\ny", "x\\y")],
        *[(f"http://{host}/", "character") for host in ("\uff11", "a<b", "x\u3002y", "\u2460.1.1.1")],
        *[
            (f"http://{host}/", "names no host")
            for host in (
                *("", ":80", "x:", "x:80:80", "x:http", "x:123456", "%31", "127.0.0.%31", "x%00", "-", "-x", "x-"),
                *(".x", "x..y", "..", "x" * 64, "x." * 127 + "x", "[::1", "::1", "[::1%25eth0]", "[127.0.0.1]"),
                *("[]", "[x]", "[::1]x", "x[::1]", "a,b", "a;b", "a&b", "*"),
            )
        ],
        *[(f"http://x:{port}/", "RUNYARD_HTTP_PORTS") for port in ("22", "0", "6379", "65535", "65536", "00022")],
        *[(f"http://x/{path}", "part of its path") for path in ("..", "a/../b", ".", "./a", "a/%2e%2e", "a/.%2E/b")],
    ],
)  # fmt: skip
def test_a_url_is_refused(url: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        target(url, OPEN)


def test_other_ports_are_reached_where_the_setting_says_so() -> None:
    assert target("http://x:0080/", Rules.read([], [80])).port == 80
    assert target("http://x:9200/", Rules.read([], [9200])).port == 9200
    with pytest.raises(Refused, match=r"port 80; http tasks reach the ports 9200, 443 \(RUNYARD_HTTP_PORTS"):
        target("http://x/", Rules.read([], [9200, 443]))


def test_what_cannot_be_resolved_is_said() -> None:
    def resolve(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(Refused, match=r"evil\.example cannot be resolved: Name or service not known"):
        addresses(NAMED, OPEN, resolve)
    with pytest.raises(Refused, match="has no address"):
        addresses(NAMED, OPEN, resolver()[0])
