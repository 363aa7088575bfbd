"""References in a URL: as they are up to the host, data behind it."""

from __future__ import annotations

import pytest

from dag.references import Scope, Unresolved
from dag.urls import resolve_url, why_refused

PARAMS = {
    "host": "api.example.com",
    "base": "https://api.example.com:8443/v1",
    "id": "a/../b?c=d#e&f %ü",
    "n": 3,
    "dots": "..",
}


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("https://x.example/", "https://x.example/"),
        ("https://${params.host}/x", "https://api.example.com/x"),
        ("https://${params.host}:${params.n}/x", "https://api.example.com:3/x"),
        ("${params.base}", "https://api.example.com:8443/v1"),
        (
            "${params.base}/items/${params.id}",
            "https://api.example.com:8443/v1/items/a%2F..%2Fb%3Fc%3Dd%23e%26f%20%25%C3%BC",
        ),
        ("${params.base}?q=${params.id}", "https://api.example.com:8443/v1?q=a%2F..%2Fb%3Fc%3Dd%23e%26f%20%25%C3%BC"),
        ("https://x/${params.n}/$${y}", "https://x/3/${y}"),
        ("https://x?${params.host}", "https://x?api.example.com"),
        ("https://x${params.dots}", "https://x.."),
        ("https://x/${params.nothing}", None),
        ("https://x/${nope", None),
    ],
)
def test_a_reference_is_data_behind_the_host(url: str, whole: str | None) -> None:
    if whole is None:
        with pytest.raises(Unresolved):
            resolve_url(url, Scope(params=PARAMS))
    else:
        assert resolve_url(url, Scope(params=PARAMS)) == whole


@pytest.mark.parametrize("url", ["https://${params.x}/a@b", "${params.x}/@", "https://x/$${y}", "${params.x"])
def test_what_only_looks_wrong_is_taken(url: str) -> None:
    assert why_refused(url) is None
