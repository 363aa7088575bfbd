"""Health, measurements, executors, keys, and what happens when we are at fault."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from api import problems
from api.app import create_app
from api.settings import ApiSettings
from dag import errors
from executors.base import Health, HealthStatus
from metastore.sqlite import SqliteStore
from tests.api.service import DICE, pointers

if TYPE_CHECKING:
    import httpx

    from tests.api.service import Api


UP, DOWN = HealthStatus.OK, HealthStatus.DOWN


@dataclass
class Standing:
    """An executor as far as readiness looks at it."""

    name: str
    by_queue: bool
    status: HealthStatus

    def health(self) -> Health:
        return Health(self.status)


class TestHealth:
    async def test_ready_says_no_while_the_metastore_is_away_and_nothing_more(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with api.client() as nobody:
            assert (await nobody.get("/health/ready")).json() == {"status": "ok"}

            async def away(*_: Any, **__: Any) -> Any:
                raise errors.Unavailable("postgresql://user:secret@host is away")

            monkeypatch.setattr(api.store, "read", away)
            assert (await nobody.get("/health/ready")).status_code == 200
            api.clock.move(timedelta(seconds=1))
            answer = await nobody.get("/health/ready")
            assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
            assert (await nobody.get("/health/live")).status_code == 200
            monkeypatch.undo()
            api.clock.move(timedelta(seconds=1))
            assert (await nobody.get("/health/ready")).status_code == 200

    @pytest.mark.parametrize(
        ("executors", "status"),
        [
            ([("local", False, DOWN)], 503),
            ([("local", False, UP), ("other", False, DOWN)], 200),
            ([("local", False, DOWN), ("other", False, DOWN)], 503),
            # Workers must reach the API above all while their broker is down.
            ([("dramatiq", True, DOWN)], 200),
            ([("local", False, DOWN), ("dramatiq", True, DOWN)], 200),
            ([], 200),
        ],
    )
    async def test_ready_says_no_only_where_nothing_can_be_done_with_what_is_sent(
        self, api: Api, executors: list[tuple[str, bool, HealthStatus]], status: int
    ) -> None:
        active = [Standing(*one) for one in executors]
        app = create_app(store=api.store, clock=api.clock, entropy=api.entropy, settings=api.settings, active=active)
        async with api.client(app=app) as nobody:
            answer = await nobody.get("/health/ready")
            assert (answer.status_code, "local" in answer.text) == (status, False)
            for one in active:
                one.status = UP
            api.clock.move(timedelta(seconds=1))
            assert (await nobody.get("/health/ready")).status_code == 200

    async def test_what_has_not_begun_yet_is_logged_when_it_should_have(self, api: Api) -> None:
        local = Standing("local", by_queue=False, status=DOWN)
        app = create_app(store=api.store, clock=api.clock, entropy=api.entropy, settings=api.settings, active=[local])
        async with api.client(app=app) as nobody:
            with capture_logs() as lines:
                assert (await nobody.get("/health/ready")).status_code == 503
            assert lines == []
            api.clock.move(timedelta(seconds=6))
            with capture_logs() as lines:
                for _ in range(3):
                    assert (await nobody.get("/health/ready")).status_code == 503
                    api.clock.move(timedelta(seconds=1))
            assert [line["event"] for line in lines] == ["executors down", "not ready"]

    async def test_ready_says_no_while_the_log_store_is_away(self, api: Api) -> None:
        async with api.client() as nobody:
            assert (await nobody.get("/health/ready")).status_code == 200
            elsewhere = api.log_dir.rename(api.log_dir.with_name("unmounted"))
            api.clock.move(timedelta(seconds=1))
            answer = await nobody.get("/health/ready")
            assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
            elsewhere.rename(api.log_dir)
            api.clock.move(timedelta(seconds=1))
            assert (await nobody.get("/health/ready")).status_code == 200

    async def test_ready_says_no_while_the_database_takes_no_writes(self, api: Api) -> None:
        assert isinstance(api.store, SqliteStore)
        async with api.client() as nobody:
            assert (await nobody.get("/health/ready")).status_code == 200
            kept = api.store.path.rename(api.store.path.with_name("kept.db"))
            api.clock.move(timedelta(seconds=1))
            assert (await nobody.get("/health/ready")).status_code == 503
            kept.rename(api.store.path)
            api.clock.move(timedelta(seconds=1))
            assert (await nobody.get("/health/ready")).status_code == 200

    async def test_many_who_ask_at_once_cost_one_look(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        looked = 0
        read = api.store.read

        async def counted(*args: Any, **options: Any) -> Any:
            nonlocal looked
            looked += 1
            return await read(*args, **options)

        monkeypatch.setattr(api.store, "read", counted)
        async with api.client() as nobody:
            await asyncio.gather(*(nobody.get("/health/ready") for _ in range(50)))
        assert looked == 1


async def test_metrics_show_what_waits_and_what_was_asked(both: Api) -> None:
    registry = CollectorRegistry()
    Counter("runyard_of_the_scheduler", "Somebody else's.", registry=registry).inc()
    both.app = create_app(
        store=both.store, clock=both.clock, entropy=both.entropy, settings=both.settings, registry=registry
    )
    await both.put("secret_dag", DICE | {"max_active_tasks": 1})
    await both.flow.slots(4)
    for number in range(3):
        run = await both.flow.create(dag_id="secret_dag", run_id=f"r{number}")
        if number < 2:
            await both.flow.begin(run)
    both.clock.move(timedelta(seconds=100))
    async with await both.caller("read") as reader:
        await reader.get("/api/v1/dags/secret_dag")
        await reader.get("/api/v1/dags/other/runs/x")
        answer = await reader.get("/metrics")
    text = answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['runyard_runs{state="queued"}'] == "1.0"
    assert values['runyard_runs{state="running"}'] == "2.0"
    assert values['runyard_queued_attempts{executor="local"}'] == "1.0"
    if both.store.dialect == "sqlite":  # Postgres has its own clock, which a test cannot move
        assert 100 <= float(values['runyard_runs_oldest_seconds{state="queued"}']) < 200
        assert 100 <= float(values['runyard_queued_attempts_oldest_seconds{executor="local"}']) < 200
    assert values['runyard_blocked_tasks{limit="dag_tasks"}'] == "1.0"
    assert values["runyard_of_the_scheduler_total"] == "1.0"
    assert values['runyard_http_requests_total{method="GET",route="/api/v1/dags/{dag_id}",status="200"}'] == "1.0"
    assert 'route="/api/v1/dags/{dag_id}/runs/{run_id}",status="404"' in text
    for secret in ("secret_dag", "r0", "agent-1"):
        assert secret not in text


async def test_the_series_of_requests_have_a_bound(api: Api) -> None:
    async with await api.caller("read") as reader:
        for number in range(30):
            await reader.get(f"/api/v1/nope/{number}")
            await reader.request(f"VERB{number}", "/health/live")
        text = (await reader.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("runyard_http_requests_total")]
    assert len(lines) <= 4, lines


async def test_executors_of_other_services_are_listed_as_well(both: Api) -> None:
    await both.flow.slots(4)
    settings = ApiSettings(log_dir=both.log_dir, executors=("sequential",))
    app = create_app(store=both.store, clock=both.clock, entropy=both.entropy, settings=settings)
    async with both.client(await both.key("read"), app) as reader:
        found = (await reader.get("/api/v1/executors")).json()["items"]
    assert [(one["name"], one["default"], one["status"]) for one in found] == [
        ("sequential", True, "unknown"),
        ("local", False, "ok"),
    ]


async def test_executors_are_listed_with_the_default_first(both: Api) -> None:
    async with await both.caller("read") as reader:
        empty = (await reader.get("/api/v1/executors")).json()["items"]
        assert [(one["name"], one["default"], one["status"]) for one in empty] == [
            ("local", True, "unknown"),
            ("sequential", False, "unknown"),
            ("dramatiq", False, "unknown"),
        ]
        await both.flow.slots(4)
        (local, *_) = (await reader.get("/api/v1/executors")).json()["items"]
        assert (local["status"], local["capacity"], local["detail"], local["queues"]) == ("ok", 4, "", [])
        (place,) = local["places"]
        assert (place["agent_id"], place["slots"], place["used"]) == ("agent-1", 4, 0)


class TestKeys:
    async def test_a_key_is_made_shown_once_used_and_revoked(self, both: Api) -> None:
        async with await both.caller("admin") as admin:
            body = {"name": "ci", "scopes": ["trigger", "read", "read"], "dag_prefix": "sales_"}
            made = await admin.post("/api/v1/keys", json=body)
            assert made.status_code == 201
            key = made.json()
            assert (key["scopes"], key["dag_prefix"], key["revoked_at"]) == (["read", "trigger"], "sales_", None)
            shown = await admin.get(made.headers["location"])
            assert shown.json() == {name: value for name, value in key.items() if name != "key"}
            assert key["key"].split("_")[2] not in (await admin.get("/api/v1/keys")).text
            bearer = {"Authorization": f"Bearer {key['key']}"}
            async with both.client() as owner:
                assert (await owner.get("/api/v1/dags", headers=bearer)).status_code == 200
                assert (await admin.delete(made.headers["location"])).status_code == 204
                both.clock.move(timedelta(seconds=1))
                assert (await owner.get("/api/v1/dags", headers=bearer)).status_code == 401
            assert (await admin.get(made.headers["location"])).json()["revoked_at"]
            assert (await admin.delete(made.headers["location"])).status_code == 204
            assert (await admin.delete("/api/v1/keys/nobody")).status_code == 404

    @pytest.mark.parametrize(
        ("body", "place"),
        [
            ({"scopes": ["read"]}, ("/name", "missing_field")),
            ({"name": "", "scopes": ["read"]}, ("/name", "too_short")),
            ({"name": "x"}, ("/scopes", "missing_field")),
            ({"name": "x", "scopes": []}, ("/scopes", "too_short")),
            ({"name": "x", "scopes": ["root"]}, ("/scopes/0", "unknown_value")),
            ({"name": "x", "scopes": ["admin"], "dag_prefix": "a"}, ("", "admin_prefix")),
            ({"name": "x", "scopes": ["read"], "dag_prefix": ""}, ("/dag_prefix", "wrong_form")),
            ({"name": "x", "scopes": ["read"], "dag_prefix": "a%"}, ("/dag_prefix", "wrong_form")),
            ({"name": "x", "scopes": ["read"], "expires_at": "never"}, ("/expires_at", "wrong_type")),
            ({"name": "x\0", "scopes": ["read"]}, ("/name", "nul_character")),
        ],
    )
    async def test_what_is_wrong_with_a_key_has_its_place(
        self, admin: httpx.AsyncClient, body: dict[str, Any], place: tuple[str, str]
    ) -> None:
        answer = await admin.post("/api/v1/keys", json=body)
        assert (answer.status_code, pointers(answer)) == (422, [place])

    async def test_a_scope_that_is_none_is_named(self, admin: httpx.AsyncClient) -> None:
        answer = await admin.post("/api/v1/keys", json={"name": "x", "scopes": ["read", "bogus"]})
        (error,) = answer.json()["errors"]
        assert error["message"].startswith("scopes[1]: 'bogus' is not one of 'read', ")
        answer = await admin.post("/api/v1/keys", json={"name": "x", "scopes": ["x" * 10_000]})
        assert len(answer.json()["errors"][0]["message"]) < 300

    async def test_an_admin_key_with_a_prefix_makes_no_keys(self, api: Api) -> None:
        async with await api.caller("admin", prefix="a") as odd:
            for method, path in [("POST", ""), ("GET", ""), ("GET", "/x"), ("DELETE", "/x")]:
                body = {"name": "x", "scopes": ["admin"]} if method == "POST" else None
                answer = await odd.request(method, f"/api/v1/keys{path}", json=body)
                assert answer.status_code == 403, (method, path)


class TestFaults:
    async def test_a_fault_of_ours_is_a_fixed_500(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        async def broken(*_: Any, **__: Any) -> Any:
            msg = "SELECT secret FROM api_keys at /home/somebody"
            raise RuntimeError(msg)

        async with await api.caller("admin") as admin:
            await admin.get("/api/v1/dags")
            monkeypatch.setattr(api.store, "read", broken)
            answer = await admin.get("/api/v1/dags")
            assert answer.status_code == 500
            problem = answer.json()
            instance = problem.pop("instance")
            assert problem == {
                "type": "/docs#problem-internal_error",
                "title": "Something went wrong on our side",
                "status": 500,
                "detail": "The failure was logged under this answer's instance.",
                "code": "internal_error",
                "retryable": True,
                "hint": problems.INTERNAL.hint,
            }
            assert instance == f"urn:uuid:{answer.headers['request-id']}"
            assert answer.headers["x-content-type-options"] == "nosniff"
            monkeypatch.undo()
            assert (await admin.get("/api/v1/dags")).status_code == 200

    @pytest.mark.parametrize("error", [kind for kind in vars(errors).values() if isinstance(kind, type)])
    def test_every_error_has_its_kind_and_a_new_leaf_answers_as_its_branch(self, error: type) -> None:
        if not issubclass(error, errors.RunyardError) or error in {errors.RunyardError, errors.SchemaMismatch}:
            return
        leaf: type[errors.RunyardError] = type("Leaf", (error,), {})
        kind = problems.kind_of(error)
        assert problems.kind_of(leaf) is kind is not problems.INTERNAL

    def test_no_two_kinds_share_a_code(self) -> None:
        assert len({kind.code for kind in problems.ALL}) == len(problems.ALL)
