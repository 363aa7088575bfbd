"""The brokers of the tests are real, and do what a test tells them."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pika
import pika.exceptions
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests import brokers
from tests.brokers import PASSWORD, RedisServer
from tests.processes import wait_until

if TYPE_CHECKING:
    from tests.brokers import RabbitServer

_NEVER = Retry(NoBackoff(), 0)

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of clients whose server was killed


@pytest.mark.redis
def test_redis_with_aof_and_a_password_keeps_what_it_has_acknowledged(tmp_path: Path) -> None:
    with RedisServer(tmp_path, aof=True, password=PASSWORD) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", 1)
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == b"1"
            client.config_set("maxmemory", 1)
            with pytest.raises(redis.OutOfMemoryError):
                client.set("more", 1)
        with redis.Redis(port=server.port, retry=_NEVER) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


@pytest.mark.redis
def test_redis_without_aof_forgets(redis_server: RedisServer, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("lost", 1)
    redis_server.restart()
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


@pytest.mark.redis
def test_a_paused_redis_answers_nobody_until_it_goes_on(redis_server: RedisServer, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, socket_timeout=0.3, retry=_NEVER) as client:
        client.set("kept", 1)
        redis_server.pause()
        try:
            with pytest.raises(redis.TimeoutError):
                client.get("kept")
        finally:
            redis_server.resume()
        assert client.get("kept") == b"1"
    redis_server.flushall()
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


@pytest.mark.redis
def test_nothing_is_left_of_a_test_run_that_is_killed(tmp_path: Path) -> None:
    code = f"""
        import time
        from pathlib import Path
        from tests.brokers import RedisServer
        print(RedisServer(Path({str(tmp_path)!r})).start().pid, flush=True)
        time.sleep(60)
    """
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    with run.stdout:
        server = int(run.stdout.readline())
        assert Path(f"/proc/{server}").exists()
        run.send_signal(signal.SIGKILL)
        run.wait()
    wait_until(lambda: not _lives(server), 20, lambda: "it is still there")


@pytest.mark.rabbitmq
def test_a_virtual_host_is_a_tests_own(rabbit_server: RabbitServer, rabbit_url: str) -> None:
    with _connect(rabbit_url) as conn:
        _publish(conn, "mail")
    other = rabbit_server.borrow()
    with _connect(rabbit_server.url(other)) as conn, pytest.raises(pika.exceptions.ChannelClosedByBroker):
        conn.channel().queue_declare("mail", passive=True)
    rabbit_server.give_back(other)
    with pytest.raises(pika.exceptions.AMQPError):
        _connect(rabbit_server.url(other))


@pytest.mark.rabbitmq
def test_rabbitmq_keeps_what_it_has_confirmed_when_it_is_killed(rabbit_server: RabbitServer, rabbit_url: str) -> None:
    with _connect(rabbit_url) as conn:
        _publish(conn, "mail")
        rabbit_server.settle()
        rabbit_server.kill()
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            conn.process_data_events(time_limit=20)
    rabbit_server.start()
    with _connect(rabbit_url) as conn:
        assert conn.channel().queue_declare("mail", passive=True).method.message_count == 1


@pytest.mark.rabbitmq
def test_rabbitmq_refuses_what_a_test_has_it_refuse(rabbit_server: RabbitServer, rabbit_url: str) -> None:
    vhost = pika.URLParameters(rabbit_url).virtual_host
    with _connect(rabbit_url) as conn:
        _publish(conn, "mail")
        rabbit_server.limit(vhost, **{"max-length": 1, "overflow": "reject-publish"})
        wait_until(lambda: _is_nacked(conn), 20, lambda: "it still takes messages")
    rabbit_server.add_user("reader", PASSWORD)
    rabbit_server.permit("reader", vhost, configure="", write="")
    url = rabbit_server.url(vhost, "reader")
    with _connect(url) as conn, pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
        conn.channel().queue_declare("another")
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        _connect(rabbit_server.url(vhost, "reader", "wrong"))


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_a_machine_without_rabbitmq_says_how_to_get_it(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers, "_ERLANG", ())
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no rabbitmq-server on this machine: apt-get install rabbitmq-server"):
        brokers.rabbit_folder()


def _connect(url: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(url))


def _publish(conn: pika.BlockingConnection, queue: str) -> None:
    channel = conn.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True)
    channel.basic_publish("", queue, b"hello", pika.BasicProperties(delivery_mode=2))


def _is_nacked(conn: pika.BlockingConnection) -> bool:
    try:
        _publish(conn, "mail")
    except pika.exceptions.NackError:
        return True
    return False


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
