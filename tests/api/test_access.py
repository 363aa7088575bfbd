"""Who may call what: every route without a key, with each single scope, with keys that are wrong in every way."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import pytest
from starlette.responses import Response

from api.app import ROUTERS
from api.auth import Scope
from api.routing import PUBLIC, Route, Router
from metastore.commands.keys import revoke_key
from metastore.queries import keys
from tests.api.service import HOST, until

if TYPE_CHECKING:
    import httpx

    from tests.api.service import Api

#: The whole surface, written down: a new route has to be added here by somebody who thinks about it.
TABLE: Final = {
    ("GET", "/health/live"): PUBLIC,
    ("GET", "/health/ready"): PUBLIC,
    ("GET", "/docs"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
    ("GET", "/metrics"): "read",
    ("PUT", "/api/v1/dags/{dag_id}"): "define",
    ("GET", "/api/v1/dags"): "read",
    ("GET", "/api/v1/dags/{dag_id}"): "read",
    ("PATCH", "/api/v1/dags/{dag_id}"): "define",
    ("DELETE", "/api/v1/dags/{dag_id}"): "define",
    ("GET", "/api/v1/dags/{dag_id}/versions"): "read",
    ("GET", "/api/v1/dags/{dag_id}/versions/{version}"): "read",
    ("GET", "/api/v1/schema/dag"): "read",
    ("POST", "/api/v1/dags/{dag_id}/runs"): "trigger",
    ("GET", "/api/v1/dags/{dag_id}/runs"): "read",
    ("GET", "/api/v1/runs"): "read",
    ("GET", "/api/v1/dags/{dag_id}/runs/{run_id}"): "read",
    ("POST", "/api/v1/dags/{dag_id}/runs/{run_id}/cancel"): "trigger",
    ("POST", "/api/v1/dags/{dag_id}/runs/{run_id}/clear"): "trigger",
    ("GET", "/api/v1/dags/{dag_id}/runs/{run_id}/tasks"): "read",
    ("GET", "/api/v1/dags/{dag_id}/runs/{run_id}/tasks/{task_id}"): "read",
    ("GET", "/api/v1/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/attempts"): "read",
    ("GET", "/api/v1/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/logs"): "logs",
    ("GET", "/api/v1/dags/{dag_id}/runs/{run_id}/events"): "read",
    ("GET", "/api/v1/executors"): "read",
    ("GET", "/api/v1/workers"): "read",
    ("GET", "/api/v1/workers/{worker_id}"): "read",
    ("POST", "/api/v1/workers/{worker_id}/drain"): "admin",
    ("POST", "/api/v1/keys"): "admin",
    ("GET", "/api/v1/keys"): "admin",
    ("GET", "/api/v1/keys/{key_id}"): "admin",
    ("DELETE", "/api/v1/keys/{key_id}"): "admin",
    ("POST", "/worker/v1/workers"): "work",
    ("POST", "/worker/v1/workers/{worker_id}/heartbeat"): "worker_token",
    ("DELETE", "/worker/v1/workers/{worker_id}"): "worker_token",
    ("POST", "/worker/v1/attempts"): "work",
    ("POST", "/worker/v1/attempts/{attempt_id}/start"): "ticket",
    ("POST", "/worker/v1/attempts/{attempt_id}/heartbeat"): "attempt_key",
    ("PUT", "/worker/v1/attempts/{attempt_id}/logs"): "attempt_key",
    ("PUT", "/worker/v1/attempts/{attempt_id}/output"): "attempt_key",
    ("GET", "/worker/v1/attempts/{attempt_id}/inputs/{task_id}"): "attempt_key",
    ("POST", "/worker/v1/attempts/{attempt_id}/finish"): "attempt_key",
}
CLOSED: Final = [(method, path, needs) for (method, path), needs in TABLE.items() if needs != PUBLIC]
SCOPED: Final = [row for row in CLOSED if row[2] in set(Scope)]
#: What workers show; no API key opens these, whatever its scopes.
OF_WORKERS: Final = [row for row in CLOSED if row[2] not in set(Scope)]
OPEN: Final = [path for (_, path), needs in TABLE.items() if needs == PUBLIC]


def a_path(template: str) -> str:
    return template.format(
        dag_id="d", run_id="r", task_id="t", key_id="k", version=1, worker_id="a" * 32, attempt_id=str(UUID(int=7))
    )


async def send(client: httpx.AsyncClient, method: str, template: str) -> httpx.Response:
    body = b"{}" if method in {"POST", "PUT", "PATCH"} else None
    return await client.request(method, a_path(template), content=body, headers={"Content-Type": "application/json"})


def test_the_table_is_the_whole_surface_and_nothing_is_mounted_beside_it(api: Api) -> None:
    found = {}
    for route in api.app.routes:
        assert isinstance(route, Route)
        for method in route.methods or ():
            found[method, route.path] = str(route.needs or PUBLIC)
    assert found == TABLE


@pytest.mark.parametrize(("method", "template", "needs"), CLOSED)
async def test_without_a_key_a_closed_route_answers_401(api: Api, method: str, template: str, needs: str) -> None:
    assert needs
    async with api.client() as nobody:
        answer = await send(nobody, method, template)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["code"] == ("unauthenticated" if needs in set(Scope) else "bad_credential")


@pytest.mark.parametrize(("method", "template", "needs"), OF_WORKERS)
async def test_no_api_key_opens_what_is_a_workers_own(api: Api, method: str, template: str, needs: str) -> None:
    async with await api.caller("admin", "work") as admin:
        answer = await send(admin, method, template)
    assert (answer.status_code, answer.json()["code"]) == (401, "bad_credential")
    assert f"{needs.replace('_', ' ')}, and this is an API key" in answer.json()["detail"]


@pytest.mark.parametrize(("method", "template", "needs"), CLOSED)
async def test_a_credential_opens_no_route_of_another_kind(api: Api, method: str, template: str, needs: str) -> None:
    shown = {"ticket": f"rt1.{'A' * 43}", "worker_token": "A" * 43, "attempt_key": "A" * 43}
    for kind, text in shown.items():
        async with api.client() as worker:
            worker.headers["Authorization"] = f"Bearer {text}"
            answer = await send(worker, method, template)
        if (needs == "ticket") != (kind == "ticket") or needs in set(Scope):
            assert answer.status_code == 401, (kind, answer.text)
        assert text not in answer.text


@pytest.mark.parametrize("path", OPEN)
async def test_an_open_route_answers_without_a_key(api: Api, path: str) -> None:
    async with api.client() as nobody:
        assert (await nobody.get(path)).status_code == 200


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_single_scope_opens_its_own_routes_and_no_other(api: Api, scope: Scope) -> None:
    async with await api.caller(scope) as caller:
        for method, template, needs in SCOPED:
            answer = await send(caller, method, template)
            allowed = scope in (needs, Scope.ADMIN)
            assert (answer.status_code != 403) is allowed, (method, template, answer.text)
            if not allowed:
                assert answer.json()["code"] == "forbidden"
                assert needs in answer.json()["detail"]


async def test_what_matches_no_route_asks_for_a_key_first(api: Api) -> None:
    async with api.client() as nobody, await api.caller("read") as caller:
        for method, path in [("GET", "/nope"), ("GET", "/"), ("POST", "/health/live"), ("OPTIONS", "/api/v1/dags")]:
            assert (await nobody.request(method, path)).status_code == 401, (method, path)
        assert (await caller.get("/nope")).json()["code"] == "route_not_found"
        answer = await caller.post("/health/live")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
        answer = await caller.post("/api/v1/dags/d")
        assert answer.headers["allow"] == "DELETE, GET, PATCH, PUT"


HOSTILE: Final = [
    "".join(parts)
    for parts in itertools.product(
        ["/health/live", "/api/v1/dags"],
        [
            "/",
            "//",
            "/..",
            "/../api/v1/dags",
            ";",
            ";/health/live",
            "%2e%2e",
            "%2f",
            "/./",
            "/health/ready",
            "\\..",
            "%00",
        ],
        ["", "?health", "/health/live", "%3F", "/configs"],
    )
] + ["/Health/Live", "/HEALTH/LIVE", "//health/live", "/api/v1/DAGS", "/api/v1/dags/d/runs/health", "/x/health/live"]


async def test_no_spelling_of_a_path_opens_a_closed_route(api: Api) -> None:
    assert len(HOSTILE) >= 100
    async with api.client() as nobody:
        for path in HOSTILE:
            for headers in ({}, {"X-Original-URL": "/health/live", "X-Forwarded-Prefix": "/health/live"}):
                scope_path = path.partition("?")[0]
                answer = await nobody.get(f"http://{HOST}{path}", headers=headers)
                assert answer.status_code == 401, (scope_path, answer.text)


WRONG_HOSTS: Final = [
    "evil.example",
    "localhost.evil.example",
    "evil.example:8080",
    "localhost@evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.2",
    "127.1",
    "[::2]",
    "localhost.",
    "xlocalhost",
    "localhost:99999999",
    "local host",
    "localhost/health/live",
    "localhost#",
    "",
    "0.0.0.1",
    "2130706433",
]


@pytest.mark.parametrize("host", WRONG_HOSTS)
async def test_a_request_to_somebody_else_is_refused(api: Api, host: str) -> None:
    key = await api.key("admin")
    async with api.client(key) as caller:
        answer = await caller.get("/health/live", headers={"Host": host})
    assert answer.status_code in {400, 421}
    assert answer.json()["code"] in {"host_malformed", "host_not_allowed"}
    assert "request-id" in answer.headers


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"])
async def test_loopback_names_are_allowed(api: Api, host: str) -> None:
    async with api.client() as nobody:
        assert (await nobody.get("/health/live", headers={"Host": host})).status_code == 200


async def test_only_the_names_of_the_settings_are_allowed(api: Api) -> None:
    api.start(allowed_hosts=("runyard.example", "other.example:8443"))
    async with api.client() as nobody:
        for host, status in [
            ("runyard.example", 200),
            ("runyard.example:80", 200),
            ("other.example:8443", 200),
            ("other.example", 421),
            ("other.example:80", 421),
            ("localhost", 421),
        ]:
            assert (await nobody.get("/health/live", headers={"Host": host})).status_code == status, host


async def test_a_second_host_header_is_refused(api: Api) -> None:
    async with api.client() as nobody:
        request = nobody.build_request("GET", "/health/live")
        request.headers = type(request.headers)([("host", "localhost"), ("host", "evil.example")])
        assert (await nobody.send(request)).status_code == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
    ],
)
async def test_other_websites_are_refused(api: Api, headers: dict[str, str], status: int) -> None:
    async with await api.caller("read") as caller:
        answer = await caller.get("/api/v1/dags", headers=headers)
        assert answer.status_code == status
        assert "access-control-allow-origin" not in answer.headers
        assert "set-cookie" not in answer.headers


async def test_a_key_that_is_wrong_in_any_way_gets_the_same_401(api: Api) -> None:
    right = (await api.key("admin")).text
    head, key_id, secret, crc = right.split("_")
    stranger = (await api.key("read")).text.split("_")[2]
    wrong = [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {right}",
        f"Bearer  {right}",
        f"Bearer {right} ",
        f"Bearer {right}x",
        f"Bearer {right.upper()}",
        f"Bearer {head}_{key_id}_{secret}",
        f"Bearer {head}_{key_id}_{secret}_{int(crc, 16) ^ 1:08x}",
        f"Bearer {head}_{key_id}_{stranger}_{crc}",
        f"Bearer {head}_{'a' * 16}_{secret}_{crc}",
        "Bearer ' OR 1=1 --",
    ]
    async with api.client() as nobody:
        for header in wrong:
            answer = await nobody.get("/api/v1/dags", headers={"Authorization": header})
            assert answer.status_code == 401, header
            assert secret not in answer.text
        assert (await nobody.get(f"/api/v1/dags?key={right}")).status_code == 401
        assert (await nobody.get("/api/v1/dags", headers={"Cookie": f"key={right}"})).status_code == 401
        assert (await nobody.get("/api/v1/dags", headers={"Authorization": f"bearer {right}"})).status_code == 200


async def test_a_well_formed_key_with_the_id_of_another_is_refused(api: Api) -> None:
    from api.auth import make_key  # noqa: PLC0415  # the one test that forges

    known = await api.key("admin")
    forged = make_key(known.key_id, api.entropy.token(32))
    async with api.client(known) as owner, api.client(forged) as thief:
        assert (await owner.get("/api/v1/dags")).status_code == 200
        assert (await thief.get("/api/v1/dags")).status_code == 401
        assert (await owner.get("/api/v1/dags")).status_code == 200


async def test_a_revoked_key_is_refused_within_a_second_on_every_replica(both: Api) -> None:
    key = await both.key("read")
    replicas = [both.app, both.start()]
    for app in replicas:
        async with both.client(key, app) as caller:
            assert (await caller.get("/api/v1/dags")).status_code == 200
    await both.store.write(revoke_key, key.key_id, "system")
    both.clock.move(timedelta(seconds=1))
    for app in replicas:
        async with both.client(key, app) as caller:
            assert (await caller.get("/api/v1/dags")).status_code == 401


async def test_an_expired_key_is_refused_at_its_moment(api: Api) -> None:
    key = await api.key("read", expires_in=timedelta(minutes=5))
    async with api.client(key) as caller:
        assert (await caller.get("/api/v1/dags")).status_code == 200
        api.clock.move(timedelta(minutes=5))
        assert (await caller.get("/api/v1/dags")).status_code == 401


async def test_the_use_of_a_key_is_noted_once_a_minute(api: Api) -> None:
    key = await api.key("read")

    async def used() -> object:
        record = await api.store.read(keys.get, key.key_id)
        assert record is not None
        return record.last_used_at

    async with api.client(key) as caller:
        await caller.get("/api/v1/dags")
        first = await until(used)
        api.clock.move(timedelta(seconds=30))
        await caller.get("/api/v1/dags")
        assert await used() == first
        api.clock.move(timedelta(seconds=31))
        await caller.get("/api/v1/dags")
        await until(used, lambda now: now != first)


async def test_a_burst_with_one_key_asks_the_metastore_for_it_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    read = api.store.read

    async def counted(query: object, *args: object, **options: object) -> object:
        nonlocal asked
        asked += query is keys.get
        return await read(query, *args, **options)  # type: ignore[arg-type]  # whatever was asked

    monkeypatch.setattr(api.store, "read", counted)
    async with await api.caller("read") as caller:
        await asyncio.gather(*(caller.get("/api/v1/executors") for _ in range(50)))
    assert asked == 1


def test_a_route_without_a_declaration_cannot_be_made() -> None:
    async def open_door() -> Response:
        return Response()

    for router in (Router(), *(module.router for module in ROUTERS)):
        before = len(router.routes)
        with pytest.raises(TypeError, match="does not declare"):
            router.get("/open-door")(open_door)
        assert len(router.routes) == before


async def test_websockets_are_closed(api: Api) -> None:
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def note(message: object) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/api/v1/dags", "headers": [(b"host", b"localhost")], "query_string": b""}
    await api.app(scope, receive, note)
    assert [message["type"] for message in sent] == ["websocket.close"]  # type: ignore[index]  # dicts, see above


async def test_every_answer_has_the_headers_that_keep_browsers_honest(api: Api) -> None:
    async with api.client() as nobody:
        for path in ("/health/live", "/docs", "/api/v1/dags", "/nope"):
            headers = (await nobody.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["request-id"]
