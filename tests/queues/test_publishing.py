from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from executors.base import Deferred, HealthStatus, Phase
from tests.brokers import PASSWORD, RabbitServer, RedisServer
from tests.processes import free_port
from tests.proxy import Proxy
from tests.queues.celery_desk import working as celery_working
from tests.queues.desk import TICKET, all_accepted, executor_at, ids, launches, phases, reason, until, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from executors.base import LaunchResult

#: What a call may take, of which five seconds are the executor's own budget.
_BUDGET = 8.0


async def test_what_is_launched_reaches_a_worker_of_its_queue_with_its_ticket(broker_url: str) -> None:
    batch, other = launches(20), launches(5, "gpu")
    async with executor_at(broker_url) as (executor, _):
        assert all_accepted(await executor.launch([*batch, *other]))
        with working(broker_url) as hands:
            await until(lambda: hands.have(batch))
        assert hands.queues == ["default"]
        assert not set(ids(other)) & set(hands.attempts)
        assert {ticket for _, ticket in hands.given} == {TICKET}
        with working(broker_url, queues=("default", "gpu")) as hands:
            await until(lambda: hands.have(other))


async def test_health_is_down_until_the_broker_was_reached(library: str, broker_url: str) -> None:
    async with executor_at(broker_url, library) as (executor, scheduler):
        async with asyncio.timeout(30):
            await scheduler.woken.wait()
        assert executor.health().status is HealthStatus.OK
    assert executor.health().status is HealthStatus.DOWN


async def test_a_large_batch_is_published_whole(broker_url: str) -> None:
    batch = launches(500)
    async with executor_at(broker_url) as (executor, _):
        assert all_accepted(await executor.launch(batch))
        with working(broker_url, threads=8) as hands:
            await until(lambda: hands.have(batch))


async def test_two_prefixes_are_two_installations(broker_url: str) -> None:
    (mine,), (theirs,) = launches(1), launches(1)
    async with executor_at(broker_url) as (executor, _), executor_at(broker_url, prefix="other") as (another, _):
        assert all_accepted([*await another.launch([theirs]), *await executor.launch([mine])])
        with working(broker_url) as hands:
            await until(lambda: hands.have([mine]))
        assert hands.attempts == [mine.attempt_id]


async def test_while_nobody_listens_launches_are_deferred_ever_longer_and_the_return_is_noticed(
    library: str,
    broker_url: str,
) -> None:
    batch = launches(3)
    with Proxy(broker_url) as wire:
        wire.refuse()
        async with executor_at(wire.url, library) as (executor, scheduler):
            first, second = [await executor.launch(batch) for _ in range(2)]
            assert "is away: it cannot be reached" in reason(first)
            assert _retry(second) > _retry(first)
            assert executor.health().status is HealthStatus.DOWN
            assert executor.health().detail == reason(second)
            assert await phases(executor, batch) == {Phase.UNKNOWN}
            wire.heal()
            async with asyncio.timeout(30):
                await scheduler.woken.wait()
            assert executor.health().status is HealthStatus.OK
            assert all_accepted(await executor.launch(batch))


async def test_a_broker_that_never_answers_delays_nobody(library: str, broker_url: str) -> None:
    batch = launches(3)
    with Proxy(broker_url) as wire:
        async with executor_at(wire.url, library) as (executor, scheduler), loop_that_turns():
            assert all_accepted(await executor.launch(launches(1)))
            wire.swallow()
            async with asyncio.timeout(_BUDGET):
                why = reason(await executor.launch(batch))
            assert "does not answer" in why
            async with asyncio.timeout(1):
                assert reason(await executor.launch(batch))
                assert await phases(executor, batch) == {Phase.UNKNOWN}
                await executor.cancel(ids(batch), reason="user")
            scheduler.woken.clear()
            wire.heal()
            async with asyncio.timeout(60):
                await scheduler.woken.wait()
            assert all_accepted(await executor.launch(batch))


async def test_a_black_hole_from_the_start_is_a_broker_that_is_down(library: str, broker_url: str) -> None:
    with Proxy(broker_url) as wire:
        wire.swallow()
        async with executor_at(wire.url, library) as (executor, _), loop_that_turns():
            async with asyncio.timeout(_BUDGET):
                assert "is away" in reason(await executor.launch(launches(1)))
            assert executor.health().status is HealthStatus.DOWN
            async with asyncio.timeout(_BUDGET):
                await executor.stop(drain=timedelta(0))


async def test_a_restarted_broker_is_used_again(library: str, broker_url: str) -> None:
    with Proxy(broker_url) as wire:
        async with executor_at(wire.url, library) as (executor, scheduler):
            assert all_accepted(await executor.launch(launches(1)))
            wire.cut()
            deferred = 0
            while not all_accepted(await executor.launch(launches(1))):
                deferred += 1
                await asyncio.sleep(0.2)
            assert deferred < 50
            assert scheduler.woken.is_set()


async def test_a_host_that_does_not_exist_is_said_to_be_so(library: str) -> None:
    for url in ("redis://nowhere.invalid", "amqp://nowhere.invalid"):
        async with executor_at(url, library) as (executor, _):
            async with asyncio.timeout(_BUDGET):
                why = reason(await executor.launch(launches(1)))
            assert "nowhere.invalid is away" in why


@pytest.mark.redis
async def test_a_wrong_password_of_redis_is_said_and_not_shown(library: str, tmp_path: Path) -> None:
    with RedisServer(tmp_path, password=PASSWORD) as server:
        for url in (f"redis://:wr0ng@127.0.0.1:{server.port}", f"redis://127.0.0.1:{server.port}"):
            async with executor_at(url, library) as (executor, _):
                why = reason(await executor.launch(launches(1)))
                assert "it refuses the user name or the password" in why
                assert "wr0ng" not in why
        async with executor_at(server.url, library) as (executor, _):
            assert all_accepted(await executor.launch(launches(1)))


@pytest.mark.rabbitmq
async def test_what_rabbitmq_refuses_is_said_without_the_password(library: str, rabbit_server: RabbitServer) -> None:
    rabbit_server.add_user("guest of honour", "pa55word")
    refusals = {
        rabbit_server.url(password="wr0ng"): "it refuses the user name or the password",  # noqa: S106  # wrong, too
        rabbit_server.url("no such host"): "it refuses the virtual host",
        rabbit_server.url(user="guest of honour", password="pa55word"): "it refuses the virtual host",  # noqa: S106  # of nobody
    }
    for url, said in refusals.items():
        async with executor_at(url, library) as (executor, _):
            why = reason(await executor.launch(launches(1)))
            assert said in why
            assert "wr0ng" not in why
            assert "pa55word" not in why


@pytest.mark.rabbitmq
async def test_without_the_right_to_a_queue_only_that_queue_is_deferred(
    library: str, rabbit_server: RabbitServer
) -> None:
    vhost = rabbit_server.borrow()
    rabbit_server.add_user("half", "pa55word")
    rabbit_server.permit("half", vhost, configure=r"runyard(-celery)?\.default", write=".*", read=".*")
    (mine,), (theirs,) = launches(1), launches(1, "secret")
    async with executor_at(rabbit_server.url(vhost, "half", "pa55word"), library) as (executor, _):
        theirs_result, mine_result = await executor.launch([theirs, mine])
        assert "may not do what Runyard needs" in reason([theirs_result])
        assert all_accepted([mine_result])
        assert executor.health().status is HealthStatus.OK
    rabbit_server.give_back(vhost)


@pytest.mark.rabbitmq
async def test_a_queue_that_refuses_messages_is_not_a_broker_that_is_away(
    library: str, rabbit_server: RabbitServer
) -> None:
    vhost = rabbit_server.borrow()
    rabbit_server.limit(vhost, **{"max-length": 1, "overflow": "reject-publish"})
    async with executor_at(rabbit_server.url(vhost), library) as (executor, _):
        results = [await executor.launch(launches(1)) for _ in range(5)]
        assert all_accepted(results[0])
        assert "is full" in reason(results[-1])
        assert executor.health().status is HealthStatus.OK
    rabbit_server.give_back(vhost)


@pytest.mark.rabbitmq
async def test_a_queue_of_somebody_else_says_what_to_do(library: str, rabbit_server: RabbitServer) -> None:
    vhost = rabbit_server.borrow()
    rabbit_server.api("PUT", f"/queues/{quote(vhost)}/{default_queue(library)}", {"durable": True})
    async with executor_at(rabbit_server.url(vhost), library) as (executor, _):
        assert "other arguments" in reason(await executor.launch(launches(1)))
        assert all_accepted(await executor.launch(launches(1, "another")))
    rabbit_server.give_back(vhost)


@pytest.mark.rabbitmq
async def test_a_deleted_queue_is_made_again(library: str, rabbit_server: RabbitServer) -> None:
    vhost = rabbit_server.borrow()
    async with executor_at(rabbit_server.url(vhost), library) as (executor, _):
        batch = launches(1)
        assert all_accepted(await executor.launch(batch))
        rabbit_server.api("DELETE", f"/queues/{quote(vhost)}/{default_queue(library)}")
        assert await phases(executor, batch) == {Phase.GONE}
        assert all_accepted(await executor.launch(batch))
        assert rabbit_server.api("GET", f"/queues/{quote(vhost)}/{default_queue(library)}")["durable"]
    rabbit_server.give_back(vhost)


@pytest.mark.redis
async def test_a_redis_that_takes_no_writes_is_away_and_says_why(
    library: str, redis_server: RedisServer, redis_url: str
) -> None:
    wishes = {
        ("CONFIG", "SET", "maxmemory", "1"): ("CONFIG", "SET", "maxmemory", "0"),
        ("REPLICAOF", "127.0.0.1", str(free_port())): ("REPLICAOF", "NO", "ONE"),
    }
    said = ["its memory is full", "it is a replica that takes no writes"]
    with redis_server.client() as client:
        for (wish, undo), why in zip(wishes.items(), said, strict=True):
            async with executor_at(redis_url, library) as (executor, scheduler):
                await asyncio.wait_for(scheduler.woken.wait(), 30)
                client.execute_command(*wish)
                try:
                    assert why in reason(await executor.launch(launches(1)))
                    scheduler.woken.clear()
                    await asyncio.sleep(1.5)
                    assert not scheduler.woken.is_set(), "it answers, and is of no use"
                    assert why in executor.health().detail
                finally:
                    client.execute_command(*undo)


@pytest.mark.redis
async def test_a_user_with_the_rights_of_the_documentation_is_enough(
    library: str, redis_server: RedisServer, redis_url: str
) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "workers.md").read_text()
    (rights,) = re.findall(r"`(~runyard:\S.*?)`", guide)
    work = {"dramatiq": working, "celery": celery_working}[library]
    batch = launches(5)
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">pa55word", *rights.split())
        try:
            url = redis_url.replace("redis://", "redis://worker:pa55word@")
            async with executor_at(url, library) as (executor, _):
                assert all_accepted(await executor.launch(batch))
                assert await phases(executor, batch) == {Phase.PENDING}
                with work(url) as hands:
                    await until(lambda: hands.have(batch))
            client.execute_command("ACL", "SETUSER", "worker", "resetkeys")
            async with executor_at(url, library) as (executor, _):
                assert "its user may not do what Runyard needs" in reason(await executor.launch(launches(1)))
        finally:
            client.execute_command("ACL", "DELUSER", "worker")


def default_queue(library: str) -> str:
    return {"dramatiq": "runyard.default", "celery": "runyard-celery.default"}[library]


def _retry(results: Sequence[LaunchResult]) -> timedelta:
    first = results[0]
    assert isinstance(first, Deferred)
    return first.retry_after


@asynccontextmanager
async def loop_that_turns() -> AsyncIterator[None]:
    """Fail if the event loop stood still for long meanwhile."""
    loop = asyncio.get_running_loop()
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            before = loop.time()
            await asyncio.sleep(0.02)
            gaps.append(loop.time() - before)

    ticking = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticking.cancel()
    assert max(gaps) < 1.5, "the loop waited for the broker"
