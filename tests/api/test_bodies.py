"""Bodies: sizes, depths, types, and everything that is not what it says it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from dag.document import MAX_BYTES, MAX_DEPTH
from tests.api.service import DICE, pointers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from tests.api.service import Api

JSON = {"Content-Type": "application/json"}
CALLS = [
    ("PUT", "/api/v1/dags/dice"),
    ("PATCH", "/api/v1/dags/dice"),
    ("POST", "/api/v1/dags/dice/runs"),
    ("POST", "/api/v1/dags/dice/runs/r/cancel"),
    ("POST", "/api/v1/dags/dice/runs/r/clear"),
    ("POST", "/api/v1/keys"),
]


@pytest.fixture(autouse=True)
async def _dice(api: Api) -> None:
    await api.put("dice")


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"{", 400, "not_json"),
        (b"{'a': 1}", 400, "not_json"),
        (b"\xff\xfe", 400, "not_utf8"),
        (b"[]", 422, "not_an_object"),
        (b"null", 422, "not_an_object"),
        (b'"{}"', 422, "not_an_object"),
        (b'{"note": 1, "note": 2}', 422, "duplicate_key"),
        (b'{"note": NaN}', 422, "number_not_finite"),
        (b'{"note": 1e999}', 422, "number_not_finite"),
        (b'{"note": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", 422, "too_deep"),
        (b'{"note": ' + b"[" * 200_000, 422, "too_deep"),
        (b'{"note": ' + b"9" * 5000 + b"}", 422, "number_out_of_range"),
        (b'{"note": "\\ud800"}', 422, "lone_surrogate"),
    ],
)
async def test_what_is_no_json_object_is_refused(  # a table and its client
    admin: httpx.AsyncClient, method: str, path: str, raw: bytes, status: int, code: str
) -> None:
    answer = await admin.request(method, path, content=raw, headers=JSON)
    assert answer.status_code == status, answer.text
    assert code in [rule for _, rule in pointers(answer)]
    assert answer.json()["code"] == ("body_malformed" if status == 400 else "invalid")


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_a_body_may_have_one_mebibyte(admin: httpx.AsyncClient, method: str, path: str) -> None:
    def of(size: int) -> bytes:
        frame = len(json.dumps({"x": ""}))
        return json.dumps({"x": "a" * (size - frame)}).encode()

    fits = await admin.request(method, path, content=of(MAX_BYTES), headers=JSON)
    assert fits.status_code == 422, fits.text[:300]
    for size in (MAX_BYTES + 1, 8 * MAX_BYTES):
        answer = await admin.request(method, path, content=of(size), headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_body_without_a_length_is_cut_off_while_it_comes(api: Api) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 512 * MAX_BYTES:
            sent += 65536
            yield b" " * 65536

    for path in ("/api/v1/dags/dice", "/api/v1/dags/dice/runs"):
        sent = 0
        async with await api.caller("admin") as admin:
            method = "PUT" if path.endswith("dice") else "POST"
            answer = await admin.request(method, path, content=endless(), headers=JSON | {"Idempotency-Key": "k"})
        assert answer.status_code == 413
        assert sent <= MAX_BYTES + 2 * 65536


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "media",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "application/problem+json",
        "text/json",
        "*/*",
    ],
)
async def test_a_body_of_another_type_is_refused(
    admin: httpx.AsyncClient, method: str, path: str, media: str | None
) -> None:
    headers = {} if media is None else {"Content-Type": media}
    answer = await admin.request(method, path, content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.headers["accept"]


async def test_a_type_may_have_parameters_and_any_case(admin: httpx.AsyncClient) -> None:
    for media in ("application/json; charset=utf-8", "Application/JSON"):
        answer = await admin.post("/api/v1/dags/dice/runs", content=b"{}", headers={"Content-Type": media})
        assert answer.status_code == 201
    answer = await admin.post("/api/v1/dags/dice/runs", content=b"{}", headers=JSON | {"Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", '"iso-8859-1"', ""])
async def test_another_charset_than_utf_8_is_refused(admin: httpx.AsyncClient, charset: str) -> None:
    media = f"application/json; Charset={charset}"
    answer = await admin.post("/api/v1/dags/dice/runs", content=b"{}", headers={"Content-Type": media})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "UTF-8" in answer.json()["detail"]


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "utf8"])
async def test_utf_8_has_several_spellings(admin: httpx.AsyncClient, charset: str) -> None:
    media = f"application/json;charset={charset}"
    answer = await admin.post("/api/v1/dags/dice/runs", content=b"{}", headers={"Content-Type": media})
    assert answer.status_code == 201


async def test_yaml_is_for_documents_only(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/api/v1/dags/dice/runs", content="{}", headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("tasks: [", 400),
        ("tasks: {a: &a [x], b: *a}", 422),
        ("tasks: !!python/object/apply:os.system [true]", 422),
        ("a: 1\n---\nb: 2", 422),
        ("a: 1\na: 2", 422),
        ("- a", 422),
        ("", 400),
        ("a: " + "[" * 100 + "]" * 100, 422),
        ("a: " + "{a: " * 10_000, 422),
    ],
)
async def test_hostile_yaml_is_refused(admin: httpx.AsyncClient, text: str, status: int) -> None:
    answer = await admin.put("/api/v1/dags/dice", content=text, headers={"Content-Type": "application/yaml"})
    assert answer.status_code == status, answer.text
    assert answer.json()["errors"]


async def test_an_empty_body_says_what_to_send(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/api/v1/dags/dice/runs", content=b"", headers=JSON)
    assert (answer.status_code, pointers(answer)) == (422, [("", "missing_body")])
    assert "{}" in answer.json()["errors"][0]["hint"]


@pytest.mark.parametrize(
    ("method", "path", "body", "meant"),
    [
        ("POST", "/api/v1/dags/dice/runs", {"parms": {}}, "params"),
        ("POST", "/api/v1/dags/dice/runs/r/clear", {"only_fail": True}, "only_failed"),
        ("POST", "/api/v1/keys", {"name": "x", "scopes": ["read"], "dag_prefx": "x"}, "dag_prefix"),
        ("PATCH", "/api/v1/dags/dice", {"pause": True}, "paused"),
    ],
)
async def test_an_unknown_field_is_refused_with_what_was_perhaps_meant(
    admin: httpx.AsyncClient, method: str, path: str, body: dict[str, Any], meant: str
) -> None:
    answer = await admin.request(method, path, json=body)
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["code"]) == (422, "unknown_field")
    assert f"'{meant}'" in error["hint"]


async def test_everything_that_is_wrong_is_told_at_once(admin: httpx.AsyncClient) -> None:
    body = {"params": 1, "run_id": "a b", "labels": {"x": 1}, "what": 1, "logical_date": "soon"}
    answer = await admin.post("/api/v1/dags/dice/runs?wait=-1", json=body)
    assert {pointer for pointer, _ in pointers(answer)} == {
        "/query/wait",
        "/params",
        "/run_id",
        "/labels/x",
        "/what",
        "/logical_date",
    }
    for error in answer.json()["errors"]:
        assert "Input should" not in error["message"]
        assert "Value error" not in error["message"]


async def test_the_service_goes_on_after_all_that(admin: httpx.AsyncClient) -> None:
    assert (await admin.put("/api/v1/dags/dice", json=DICE)).status_code == 200
