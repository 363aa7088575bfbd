"""Builds our image and runs it where there is no container engine: in an empty root, in namespaces of the kernel.

What an engine does to a process is done here as well: a root of its own (read-only where that is asked for), its own
pids and mounts, the user, no capabilities, and exactly the environment that image and service give.  The base is Debian
with its Python, made from packages; it stands in for the published one.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.docker.dockerfile import Stage, Step, expand, pairs, parse
from tests.processes import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_DIET = [f"path-exclude=/usr/share/{kind}/*" for kind in ("doc", "man", "locale")]
#: What a build gets of this machine: names resolve, and the registry's certificate is believed.
_LENT = ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt")


def missing() -> str | None:
    """Return what this machine lacks, None where nothing is missing."""
    if os.geteuid() != 0:
        return "only root can make a root of its own"
    if shutil.which("mmdebstrap") is None:
        return "no mmdebstrap on this machine: apt-get install mmdebstrap"
    probe = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], capture_output=True, check=False)
    return None if probe.returncode == 0 else "this machine lets nobody make namespaces"


def make_base(root: Path) -> None:
    """Make *root* what the published base is: a small Debian with a ``python``."""
    options = [f"--dpkgopt={rule}" for rule in _DIET]
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=apt", "--include=python3-venv", *options, "bookworm", root],
        check=True,
    )
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for place in (*_LENT, "/etc/hosts"):
        (root / place[1:]).parent.mkdir(parents=True, exist_ok=True)
        (root / place[1:]).touch()


def copy_root(base: Path, root: Path) -> None:
    """Make *root* like *base*; files are shared until somebody puts another in the place of one, as installers do."""
    subprocess.run(["cp", "-al", base, root], check=True)


@dataclass(slots=True)
class Image:
    """A root, and what is to be done with it."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    workdir: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)


def build(dockerfile: Path, context: Path, base: Path, place: Path) -> Image:
    """Do what *dockerfile* says, and return its last stage."""
    before, stages = parse(dockerfile.read_text())
    outer: dict[str, str] = {}
    for step in before:
        assert step.name == "ARG", step
        outer |= pairs(expand(step.text, outer))
    made: dict[str, Image] = {}
    for number, stage in enumerate(stages):
        assert expand(stage.base, outer).startswith("python:3.11-slim"), stage.base
        image = Image(place / str(number))
        copy_root(base, image.root)
        _Builder(image, context, made).do(stage)
        made[stage.name] = image
    return image


class _Builder:
    def __init__(self, image: Image, context: Path, made: Mapping[str, Image]) -> None:
        self._image, self._context, self._made = image, context, made
        self._args: dict[str, str] = {}
        self._ignore = (context / ".dockerignore").read_text().split("\n")

    def do(self, stage: Stage) -> None:
        for step in stage.steps:
            getattr(self, f"_{step.name.lower()}")(step)

    def _known(self) -> dict[str, str]:
        return {**self._args, **self._image.env}

    def _arg(self, step: Step) -> None:
        self._args |= pairs(expand(step.text, self._known()))

    def _env(self, step: Step) -> None:
        self._image.env |= pairs(expand(step.text, self._known()))

    def _label(self, step: Step) -> None:
        self._image.labels |= pairs(expand(step.text, self._known()))

    def _user(self, step: Step) -> None:
        self._image.user = step.text

    def _workdir(self, step: Step) -> None:
        self._image.workdir = step.text
        (self._image.root / step.text[1:]).mkdir(parents=True, exist_ok=True)

    def _volume(self, step: Step) -> None:
        self._image.volumes += step.words()

    def _expose(self, step: Step) -> None:
        assert step.text.isdecimal(), step

    def _stopsignal(self, step: Step) -> None:
        assert step.text == "SIGTERM", step

    def _entrypoint(self, step: Step) -> None:
        self._image.entrypoint = step.words()

    def _cmd(self, step: Step) -> None:
        self._image.command = step.words()

    def _healthcheck(self, step: Step) -> None:
        assert step.text.startswith("CMD "), step
        self._image.health = Step("CMD", (), step.text.removeprefix("CMD ")).words()

    def _copy(self, step: Step) -> None:
        *sources, target = step.words()
        source_root = self._context
        for flag in step.flags:
            source_root = self._made[flag.removeprefix("--from=")].root
        goal = self._image.root / (target[1:] if target.startswith("/") else f"{self._image.workdir[1:]}/{target}")
        for source in sources:
            origin = source_root / source.lstrip("/")
            if origin.is_dir():
                shutil.copytree(origin, goal, symlinks=True, dirs_exist_ok=True, ignore=self._ignored(source_root))
            else:
                assert source_root is not self._context or not self._is_ignored(source), f"{source} is ignored"
                into = goal if len(sources) == 1 and not target.endswith("/") else goal / origin.name
                into = into / origin.name if into.is_dir() else into
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(origin, into)

    def _ignored(self, root: Path) -> Callable[[str, list[str]], set[str]]:
        def ignored(folder: str, names: list[str]) -> set[str]:
            if root is not self._context:
                return set()
            here = Path(folder).relative_to(root)
            return {name for name in names if self._is_ignored(str(here / name))}

        return ignored

    def _is_ignored(self, path: str) -> bool:
        """Apply the last rule that matches *path* or a folder above it."""
        parts = Path(path).parts
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        ignored = False
        for rule in self._ignore:
            pattern = rule.removeprefix("!").strip().replace("**/", "*")
            if rule and not rule.startswith("#") and any(fnmatch.fnmatch(one, pattern) for one in above):
                ignored = not rule.startswith("!")
        return ignored

    def _run(self, step: Step) -> None:
        for flag in step.flags:
            assert flag.startswith("--mount=type=secret,"), flag  # none is given here
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", **self._known()}
        lent = Walls(mounts={place: f"ro:{place}" for place in _LENT})
        box = Container(self._image, ["/bin/sh", "-ec", f"cd {self._image.workdir}; {step.text}"], env, lent)
        done = subprocess.run(box.args(), env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{step.text}\n{done.stdout}\n{done.stderr}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """What stands around a process."""

    hostname: str = "box"
    #: ``uid:gid``.
    user: str = "0:0"
    #: What is mounted where: ``rw:/path``, ``ro:/path`` or ``tmpfs:``.
    mounts: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False
    #: Without any capability, now and after any exec.
    stripped: bool = False
    #: The pid of a process in whose network it is; this machine's where that is None.
    network: int | None = None


class Container:
    """A process in *image*'s root; PID 1 there."""

    def __init__(self, image: Image, command: Sequence[str], env: Mapping[str, str], walls: Walls) -> None:
        self.image, self.command, self.env = image, list(command), dict(env)
        self._walls = walls
        self._daemon: Daemon | None = None
        self.pid = 0

    def args(self) -> list[str]:
        """Return the command line that makes the namespaces, mounts what belongs there, and becomes the command."""
        root = self.image.root
        todo = [f"echo {self._walls.hostname} > /proc/sys/kernel/hostname", f"mount --bind {root} {root}"]
        if self._walls.read_only:
            todo.append(f"mount -o remount,bind,ro {root}")
        todo += [f"mount -t proc proc {root}/proc", f"mount -t tmpfs -o mode=755 dev {root}/dev"]
        todo += [
            f"touch {root}/dev/{name} && mount --bind /dev/{name} {root}/dev/{name}"
            for name in ("null", "zero", "random", "urandom")
        ]
        for target, source in self._walls.mounts.items():
            kind, _, path = source.partition(":")
            if kind == "tmpfs":
                todo.append(f"mount -t tmpfs -o mode=1777 tmpfs {root}{target}")
            else:
                todo.append(f"mount --bind {path} {root}{target}")
                if kind == "ro":
                    todo.append(f"mount -o remount,bind,ro {root}{target}")
        todo.append('exec /usr/sbin/chroot "$0" "$@"')
        inner = ["/bin/sh", "-ec", "; ".join(todo), str(root), *self._become(), *self.command]
        outer = ["/usr/bin/unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", *inner]
        return (
            outer
            if self._walls.network is None
            else ["/usr/bin/nsenter", f"--net=/proc/{self._walls.network}/ns/net", *outer]
        )

    def start(self, log: Path) -> None:
        """Start it, and return once the command has become PID 1."""
        self._daemon = Daemon(self.args(), log, self.env)
        deadline = time.monotonic() + 30
        while not (found := self._first()):
            assert not self.ended(), log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        self.pid = found

    def ended(self) -> bool:
        assert self._daemon is not None
        return self._daemon.ended()

    def run(self, log: Path) -> int:
        """Run it to its end, and return its exit code."""
        with log.open("ab") as out:
            return subprocess.run(self.args(), env=self.env, stdout=out, stderr=out, check=False).returncode

    def execute(self, command: Sequence[str], given: str = "") -> subprocess.CompletedProcess[str]:
        """Run *command* beside it, as ``docker exec`` does."""
        enter = ["/usr/bin/nsenter", f"--target={self.pid}", "--mount", "--uts", "--pid", "--net", "--root", "--wd"]
        return subprocess.run(
            [*enter, *self._become(), *command],
            env=self.env,
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def well(self, health: Sequence[str]) -> bool:
        return self.execute(health).returncode == 0

    def stop(self, sent: signal.Signals = signal.SIGTERM, within: float = 30.0) -> int:
        """Have it end as ``docker stop`` does, and return its exit code."""
        assert self._daemon is not None
        os.kill(self.pid, sent)
        deadline = time.monotonic() + within
        while not self.ended() and time.monotonic() < deadline:
            time.sleep(0.05)
        in_time = self.ended()
        self._daemon.stop(signal.SIGKILL)
        return self._daemon.code if in_time else 137

    def close(self) -> None:
        """Leave nothing behind."""
        if self._daemon is not None:
            self._daemon.stop(signal.SIGKILL)

    def _become(self) -> list[str]:
        uid, _, gid = self._walls.user.partition(":")
        if self._walls.user == "0:0":
            return []
        caps = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"] if self._walls.stripped else []
        return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *caps]

    def _first(self) -> int:
        """Return the pid, out here, of the namespace's first process, once it is the command itself."""
        assert self._daemon is not None
        for pid in _descendants(self._daemon.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            (names,) = [one.split()[1:] for one in status.splitlines() if one.startswith("NSpid:")]
            if (
                len(names) > 1
                and names[-1] == "1"
                and not any(b"/usr/sbin/chroot " in word for word in line)
                and (not line[0].endswith((b"setpriv", b"chroot")))
            ):
                return pid
        return 0


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        try:
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue
    return found[1:]
