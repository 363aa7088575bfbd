"""The image is built and the Compose file brought up, in roots of their own, and then used.

One test, since building takes its time and all of it is about one installation.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from tests.docker import engine
from tests.docker.compose import Network, Project, new_volume, stand_ins
from tests.docker.engine import Container, Walls
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.docker.engine import Image

ROOT = Path(__file__).parents[2]
PASSWORDS = {"POSTGRES_PASSWORD": "3b5fd3a1postgres", "REDIS_PASSWORD": "77c01e9bredis"}
#: What a task sees of the container that it runs in.
CURIOUS = """
dag_id: curious
tasks:
  look:
    python:
      source: |
        import json, os, socket
        def main():
            seen = [" ".join(f"{k}={v}" for k, v in os.environ.items())]
            for pid in filter(str.isdigit, os.listdir("/proc")):
                for name in ("environ", "cmdline"):
                    try:
                        seen.append(open(f"/proc/{pid}/{name}", errors="replace").read())
                    except OSError:
                        pass
            found = {"uid": os.getuid(), "host": socket.gethostname(), "code": os.listdir("/code")}
            print(json.dumps({"seen": " ".join(seen), **found}))
"""


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, Image]]:
    if lack := engine.missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(lack)
    # Not in pytest's own folder, which is kept: these are whole systems.
    with TemporaryDirectory(prefix="runyard-test-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        base = place / "base"
        engine.make_base(base)
        yield {"runyard": engine.build(ROOT / "docker/Dockerfile", ROOT, base, place), **stand_ins(base, place)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_image_and_the_compose_file_do_what_they_say(images: dict[str, Image], tmp_path: Path) -> None:
    _check_standalone(images["runyard"], tmp_path / "alone")
    with Project(ROOT / "docker/compose.yaml", PASSWORDS, images, tmp_path) as project:
        project.up({"worker": 2})
        for name in ("api", "scheduler", "worker"):
            for container in project.containers[name]:
                _check_walls(container)
        _check_what_a_task_sees(project)
        _check_who_may_go(project)
        _check_the_end(project)


def _check_standalone(image: Image, place: Path) -> None:
    """``docker run --read-only --tmpfs /tmp runyard``."""
    assert image.labels["org.opencontainers.image.title"] == "Runyard"
    mounts = {volume: new_volume(place / volume.replace("/", "_"), image, volume) for volume in image.volumes}
    with Network() as network:
        walls = Walls(user=image.user, mounts={**mounts, "/tmp": "tmpfs:"}, read_only=True, network=network.pid)  # noqa: S108  # in there
        box = Container(image, [*image.entrypoint, *image.command], image.env, walls)
        box.start(place / "log")
        wait_until(lambda: box.well(image.health), 60, (place / "log").read_text)
        listed = box.execute(["runyard", "executors", "--json"])
        assert [one["name"] for one in json.loads(listed.stdout)] == ["sequential"], listed.stderr
        assert box.stop() == 0, (place / "log").read_text()
        assert "Traceback" not in (place / "log").read_text()


def _check_walls(container: Container) -> None:
    """Nobody special, with nothing to write on but the volumes, and with an environment that is nobody's business."""
    facts = container.execute(["sh", "-c", "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status"]).stdout
    assert facts.split() == ["10001", "CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]
    assert "Read-only file system" in container.execute(["touch", "/code/x", "/opt/runyard/x", "/x"]).stderr
    assert "Permission denied" in container.execute(["cat", "/proc/1/environ"]).stderr


def _check_what_a_task_sees(project: Project) -> None:
    assert _ask(project, "trigger", "seed", "--wait")["state"] == "success"
    run = _ask(project, "trigger", "curious", "--wait")
    assert run["state"] == "success"
    found = json.loads(_say(project, "logs", "curious", run["run_id"], "look"))
    assert (found["uid"], found["host"].rpartition("-")[0], "seed" in found["code"]) == (10001, "worker", True)
    assert not [password for password in PASSWORDS.values() if password in found["seen"]]
    assert "RUNYARD_DATABASE_URL" not in found["seen"]
    assert "RUNYARD_DATABASE_URL" not in project.containers["worker"][0].env


def _check_who_may_go(project: Project) -> None:
    """A worker drains, a scheduler dies, an agent dies; the rest goes on, and no dead process stays behind."""
    assert project.containers["worker"].pop().stop() == 0, project.log("worker").read_text()
    project.containers["scheduler"].pop().stop(signal.SIGKILL)
    worker = project.containers["worker"][0]
    find = "grep -l worker/__main__[.]py /proc/[0-9]*/cmdline | head -1 | cut -d/ -f3"
    kill = f"kill -9 $({find})"
    assert worker.execute(["sh", "-c", kill]).returncode == 0
    assert _ask(project, "trigger", "seed", "--wait")["state"] == "success"
    project.wait_until_well("worker")
    count_zombies = ["sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"]
    wait_until(lambda: worker.execute(count_zombies).stdout.strip() == "0", 60, lambda: "the dead are not reaped")


def _check_the_end(project: Project) -> None:
    for name in ("worker", "scheduler", "api"):
        for container in project.containers.pop(name):
            assert container.stop() == 0, project.log(name).read_text()
        assert "Traceback" not in project.log(name).read_text()
        assert not [one for one in PASSWORDS.values() if one in project.log(name).read_text()], name


def _ask(project: Project, *command: str) -> Any:
    """Return what the command line says in the API's container, as ``docker compose exec`` gives it."""
    api = project.containers["api"][0]
    apply = "for f in /tmp/*.yaml; do runyard apply -f $f; done"
    documents = {"seed": (ROOT / "examples/seed/seed.yaml").read_text(), "curious": CURIOUS}
    for name, text in documents.items():
        api.execute(["sh", "-c", f"cat > /tmp/{name}.yaml"], text)
    assert api.execute(["sh", "-ec", apply]).returncode == 0
    return json.loads(_say(project, *command, "--json"))


def _say(project: Project, *command: str) -> str:
    done = project.containers["api"][0].execute(["runyard", *command])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
