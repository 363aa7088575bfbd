"""The workers in ``examples/workers``: processes of their own before a real server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from metastore.queries import tasks
from runyard import web
from tests.api.remote import TASK, a_worker, offer, record_of, ticket_of
from tests.api.service import until
from tests.api.test_worker_protocol import cancel
from worker import logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.api.service import Api

EXAMPLES: Final = Path(__file__).parents[2] / "examples" / "workers"
PYTHON: Final = "worker.py"
SHELL: Final = pytest.param(
    "worker.sh",
    marks=pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="it needs curl and jq"),
)
BOTH: Final = pytest.mark.parametrize("name", [PYTHON, SHELL])


class Serving:
    """The API on a port of its own."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._bound = web.listen("127.0.0.1", 0, ())
        self._server = web.Server(api.app)
        self._task: asyncio.Task[None] | None = None
        self.url = web.url_of(self._bound)

    async def __aenter__(self) -> str:
        self._task = asyncio.create_task(self._server.serve(sockets=[self._bound]))
        await self._server.settled.wait()
        return self.url

    async def stop(self) -> None:
        """Be away from now on."""
        self._api.app.state.services.heartbeats.stop()
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._bound.close()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class Example:
    """One of the examples, as a process."""

    def __init__(self, api: Api, process: asyncio.subprocess.Process, name: str) -> None:
        self.api = api
        self.process = process
        self.name = name

    async def offered(self, attempt_id: str) -> None:
        """Give it an attempt; it has been asked to take one only."""
        assert self.process.stdin is not None
        ticket = await ticket_of(self.api, attempt_id)
        line = json.dumps({"attempt_id": attempt_id, "ticket": ticket}) if self.name == PYTHON else ticket
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.write_eof()

    async def end(self) -> str:
        """Return what it said once it has ended."""
        said, wrong = await asyncio.wait_for(self.process.communicate(), 60)
        assert self.process.returncode == 0, wrong
        return said.decode()


@asynccontextmanager
async def example(api: Api, url: str, name: str, attempt: str = "") -> AsyncIterator[Example]:
    """Start an example; the shell's is for one *attempt*, and needs somebody else that serves the queue."""
    key = await api.key("work")
    environ = {"PATH": os.environ["PATH"], "RUNYARD_API_URL": url, "RUNYARD_API_KEY": key.text}
    argv = [sys.executable, name, "dramatiq", "default"] if name == PYTHON else ["sh", name, attempt]
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=EXAMPLES, env=environ, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Example(api, process, name)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def run(api: Api, name: str, task: dict[str, Any]) -> tuple[Any, str]:
    """Have an example run one task; return the attempt's record and its id."""
    async with Serving(api) as url:
        await a_worker(api)  # somebody serves the queue
        attempt_id = await offer(api, {"roll": TASK | task})
        async with example(api, url, name, attempt_id) as one:
            await one.offered(attempt_id)
            await one.end()
    return await record_of(api, attempt_id), attempt_id


def log_of(api: Api, attempt_id: str) -> bytes:
    return logs.path(api.log_dir, attempt_id).read_bytes()


@BOTH
async def test_it_runs_a_command_and_tells_all_of_it(both: Api, name: str) -> None:
    line = 'echo "to $NAME"; echo oops >&2; echo \'{"total": 7}\' >"$RUNYARD_OUTPUT"; env | grep -c KEY; true'
    record, attempt_id = await run(both, name, {"shell": True, "command": line, "env": {"NAME": "you & $me"}})
    assert (record.state, record.exit_code, record.error) == ("success", 0, None)
    assert log_of(both, attempt_id) == b"to you & $me\noops\n0\n"
    assert record.log_size == len(log_of(both, attempt_id))
    text = await both.store.read(tasks.output, record.instance)
    assert json.loads(text or "null") == {"total": 7}
    # Its clock is months off the service's, which a test moves as it likes.
    assert record.started_at is not None
    assert timedelta(0) <= record.ended_at - record.started_at < timedelta(seconds=30)


@BOTH
async def test_it_tells_of_a_failure(api: Api, name: str) -> None:
    record, _ = await run(api, name, {"command": ["sh", "-c", "exit 3"]})
    assert (record.state, record.exit_code) == ("failed", 3)
    assert "3" in record.error


@BOTH
async def test_arguments_arrive_as_they_are(api: Api, name: str) -> None:
    words = ["", " ", "a'b", 'c"d', "$HOME", "`id`", "\\", "*", "é\n-n", "x=y"]
    command = [sys.executable, "-c", "import sys; print(sys.argv[1:])", *words]
    _, attempt_id = await run(api, name, {"command": command})
    assert log_of(api, attempt_id).decode() == f"{words}\n"


@BOTH
async def test_a_long_log_arrives_whole(api: Api, name: str) -> None:
    command = [sys.executable, "-c", "for n in range(400_000): print(n)"]
    record, attempt_id = await run(api, name, {"command": command})
    assert record.state == "success"
    assert log_of(api, attempt_id) == b"".join(b"%d\n" % n for n in range(400_000))


@BOTH
async def test_an_output_that_is_none_fails_the_task(api: Api, name: str) -> None:
    record, _ = await run(api, name, {"shell": True, "command": 'echo "{" >"$RUNYARD_OUTPUT"'})
    assert (record.state, record.error) == ("failed", "its output was refused")


@BOTH
async def test_what_it_may_not_start_it_leaves_alone(api: Api, name: str, tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"
    async with Serving(api) as url:
        await a_worker(api)
        attempt_id = await offer(api, {"roll": TASK | {"command": ["touch", str(proof)]}})
        await cancel(api, attempt_id)
        async with example(api, url, name, attempt_id) as one:
            await one.offered(attempt_id)
            assert attempt_id not in await one.end()
    assert not proof.exists()


STUBBORN: Final = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
subprocess.Popen(["sleep", "300"])
open(sys.argv[1], "w").write(str(os.getpgid(0)))
time.sleep(300)
time.sleep(300)
"""


def alive(group: Path) -> bool:
    """Whether something of the process group lives whose number is in the file."""
    number = group.read_text()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[2] == number and fields[0] != "Z":
            return True
    return False


async def stubborn(api: Api, tmp_path: Path) -> tuple[str, Path]:
    """Queue a task that SIGTERM does not end, and that has a child."""
    group = tmp_path / "group"
    task = {"command": [sys.executable, "-c", STUBBORN, str(group)], "kill_grace": "PT1S"}
    return await offer(api, {"roll": TASK | task}), group


async def begun(group: Path) -> None:
    await until(lambda: asyncio.to_thread(lambda: group.exists() and group.read_text() != ""))


@BOTH
async def test_a_cancel_ends_all_of_it_within_its_grace(both: Api, name: str, tmp_path: Path) -> None:
    async with Serving(both) as url:
        await a_worker(both)
        attempt_id, group = await stubborn(both, tmp_path)
        async with example(both, url, name, attempt_id) as one:
            await one.offered(attempt_id)
            await begun(group)
            await cancel(both, attempt_id)
            assert "cancelled" in await one.end()
    assert not alive(group)
    assert (await record_of(both, attempt_id)).state == "cancelled"
    assert log_of(both, attempt_id) == b"told\n"


@BOTH
async def test_it_ends_its_task_when_its_lease_is_over(api: Api, name: str, tmp_path: Path) -> None:
    api.start(worker_lease=timedelta(seconds=6), worker_heartbeat=timedelta(seconds=1))
    serving = Serving(api)
    async with serving as url:
        await a_worker(api)
        attempt_id, group = await stubborn(api, tmp_path)
        async with example(api, url, name, attempt_id) as one:
            await one.offered(attempt_id)
            await begun(group)
            await serving.stop()
            await until(lambda: asyncio.to_thread(lambda: not alive(group)))
    assert (await record_of(api, attempt_id)).state == "running"  # nobody has said anything else


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="it needs curl and openssl")
async def test_the_session_in_the_documentation_works_as_it_stands(api: Api) -> None:
    page = (EXAMPLES.parents[1] / "docs" / "reference" / "worker-protocol.md").read_text()
    session = page.rpartition("```sh\n")[2].partition("```")[0]
    async with Serving(api) as url:
        await a_worker(api)
        attempt_id = await offer(api)
        environ = {
            "PATH": os.environ["PATH"],
            "RUNYARD_API_KEY": (await api.key("work")).text,
            "ATTEMPT": attempt_id,
            "TICKET": await ticket_of(api, attempt_id),
        }
        script = "set -e\n" + session.replace("http://127.0.0.1:8080", url).replace(
            "curl ", "curl -sS --fail-with-body "
        )
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", script, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        said, wrong = await process.communicate()
    assert process.returncode == 0, (said, wrong)
    assert (await record_of(api, attempt_id)).state == "success"
    assert log_of(api, attempt_id) == b"hi\n"
