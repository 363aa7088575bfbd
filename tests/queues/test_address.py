from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dag.errors import Invalid
from executors.base import ExecutorConfig
from executors.queues.address import PLACE, Address
from executors.queues.factory import create_dramatiq

ROOT = Path(__file__).parents[2]
SECRET = "s3cret-p/ss"  # noqa: S105  # it is nobody's password
ESCAPED = "s3cret-p%2Fss"


@pytest.mark.parametrize(
    ("url", "kind", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis", "redis://127.0.0.1:6379/0"),
        ("redis://redis", "redis", "redis://redis"),
        (f"rediss://:{ESCAPED}@redis.example.com/3", "redis", "rediss://redis.example.com/3"),
        (f"redis://user:{ESCAPED}@[::1]:6379/0?db=2", "redis", "redis://user@[::1]:6379/0"),
        (f"unix:///run/redis.sock?db=1&password={ESCAPED}", "redis", "unix:///run/redis.sock"),
        ("amqp://rabbit", "rabbitmq", "amqp://rabbit"),
        (f"amqps://user:{ESCAPED}@rabbit:5671/my%2Fhost?heartbeat=9", "rabbitmq", "amqps://user@rabbit:5671/my%2Fhost"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, kind: str, shown: str) -> None:
    address = Address.read(url)
    assert (address.kind, address.shown) == (kind, shown)
    assert "s3cret" not in repr(address)


def test_the_password_is_taken_out_of_what_a_library_says() -> None:
    address = Address.read(f"redis://:{ESCAPED}@h")
    assert address.scrub(f"cannot use {SECRET}, nor {ESCAPED}") == "cannot use ***, nor ***"


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("localhost:6379", id="no scheme"),
        pytest.param(f"http://:{SECRET}@h", id="another scheme"),
        pytest.param(f"{SECRET}", id="the password alone"),
        pytest.param("redis://", id="no host"),
        pytest.param("redis://h/zero", id="no number of a database"),
        pytest.param("redis://h/0/1", id="two databases"),
        pytest.param("redis://h:99999/0", id="no port"),
        pytest.param("redis://h:0/0", id="port 0"),
        pytest.param("redis://h h/0", id="a blank"),
        pytest.param("redis://h/0\n", id="a line end"),
        pytest.param(f"redis://:{SECRET}@h/0", id="a slash in the password"),
        pytest.param("redis://:s3cret#p@h/0", id="a hash in the password"),
        pytest.param("redis://:s3cret?p@h/0", id="a question mark in the password"),
        pytest.param("redis://:s3cret[p@h/0", id="a bracket in the password"),
        pytest.param("unix://run/redis.sock", id="two slashes"),
        pytest.param("unix:///", id="no socket"),
        pytest.param("amqp://h/a/b", id="a slash in the virtual host"),
        pytest.param("amqp://s3cret@h/", id="no password"),
    ],
)
def test_what_is_no_address_is_refused_with_its_place_and_without_its_secret(url: str | None) -> None:
    with pytest.raises(Invalid) as caught:
        Address.read(url)
    (problem,) = caught.value.problems
    assert problem.pointer == PLACE
    assert problem.hint
    assert "s3cret" not in f"{problem} {caught.value}"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret@h/0?password=s3cret&shards=3",
        "redis://:s3cret@h/0?socket_timeout=1",
        "rediss://:s3cret@h/0?ssl_cert_reqs=s3cret",
        "redis://:s3cret@h/0?db=first",
        "amqp://u:s3cret@h?frame=1",
        "amqp://u:s3cret@h?heartbeat=s3cret",
        "amqps://u:s3cret@h?ssl_options={'cafile': '/s3cret'}".replace(" ", ""),
        "amqps://u:s3cret@h?ssl_options=__import__",
    ],
)
def test_wrong_options_are_refused_before_anybody_connects(url: str, config: ExecutorConfig) -> None:
    with pytest.raises(Invalid) as caught:
        create_dramatiq(_with(config, url))
    (problem,) = caught.value.problems
    assert problem.pointer == PLACE
    assert "s3cret" not in f"{problem}"


@pytest.mark.parametrize(
    "url", ["redis://h/3?db=1", "rediss://h?ssl_cert_reqs=none", "unix:///s?db=2", "amqps://h", "amqp://h?heartbeat=5"]
)
def test_what_can_be_an_address_makes_an_executor_without_connecting(url: str, config: ExecutorConfig) -> None:
    assert create_dramatiq(_with(config, url)).health().detail == "not started"


def _with(config: ExecutorConfig, url: str) -> ExecutorConfig:
    return ExecutorConfig(
        name=config.name,
        home=config.home,
        code_dir=config.code_dir,
        log_dir=config.log_dir,
        task_python=config.task_python,
        parallelism=config.parallelism,
        options={"broker_url": url, "prefix": "runyard"},
    )


@pytest.mark.parametrize(
    ("name", "url", "missing", "extra"),
    [
        ("dramatiq", "redis://h", "redis", "redis"),
        ("dramatiq", "redis://h", "dramatiq", "redis"),
        ("dramatiq", "amqp://h", "pika", "rabbitmq"),
        ("celery", "redis://h", "celery", "celery"),
        ("celery", "amqp://h", "kombu", "celery"),
    ],
)
def test_without_its_extra_an_executor_says_what_to_install(name: str, url: str, missing: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from pathlib import Path\n"
        "from dag.errors import Invalid\n"
        "from executors import registry\n"
        "from executors.base import ExecutorConfig\n"
        "p = Path('/')\n"
        f"options = {{'broker_url': {url!r}, 'prefix': 'runyard'}}\n"
        f"config = ExecutorConfig(name={name!r}, home=p, code_dir=p, log_dir=p, task_python='', parallelism=1,"
        " options=options)\n"
        "try:\n    registry.make(config)\n"
        "except Invalid as error:\n    print(error.problems[0].code, error.problems[0].hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == f"missing_extra pip install 'runyard[{extra}]'\n", done.stderr
