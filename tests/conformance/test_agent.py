"""What only an agent on this host has: its life beside services that come, go, differ and are killed."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from executors import agent as service_side
from executors import registry, spawn
from executors.base import ExecutorConfig, HealthStatus, Launch, Phase
from executors.conformance import Bench
from executors.conformance.world import is_alive
from tests.conformance.local_harness import LocalHarness
from worker import environment, linux
from worker.settings import AgentSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker.protocol import Message

REPOSITORY = Path(registry.__file__).parent.parent


@pytest.fixture
def harness(tmp_path: Path) -> LocalHarness:
    return LocalHarness("local", 4, tmp_path)


@pytest.fixture
async def bench(harness: LocalHarness) -> AsyncIterator[Bench]:
    bench = Bench(harness)
    await bench.open()
    try:
        yield bench
    finally:
        await bench.close()


def settings_of(harness: LocalHarness, **changes: object) -> AgentSettings:
    settings = AgentSettings.make(
        home=str(harness.home),
        code_dir=str(harness.code_dir),
        log_dir=str(harness.home / "logs"),
        task_python=sys.executable,
        environ=environment.allowed(os.environ),
    )
    return dataclasses.replace(settings, **changes)  # type: ignore[arg-type]  # names and values come from the test


async def exit_code(pid: int) -> int:
    """Wait for the end of an agent that the test started; kill it where it does not come."""
    for _ in range(1000):
        ended, status = os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222  it does not wait
        if ended:
            return os.waitstatus_to_exitcode(status)
        await asyncio.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("it did not end")


async def test_folder_socket_and_id_are_private(bench: Bench, harness: LocalHarness) -> None:
    folder = harness.home / "agent"
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in (".", "socket", "lock", "id", "agent.log")}
    assert modes == {".": 0o700, "socket": 0o600, "lock": 0o600, "id": 0o600, "agent.log": 0o600}
    assert bench.executor.placed_on == (folder / "id").read_text()


async def test_a_folder_that_others_may_enter_is_refused(harness: LocalHarness) -> None:
    (harness.home / "agent").mkdir(0o755)
    (harness.home / "agent").chmod(0o755)
    with pytest.raises(PermissionError, match="chmod 700"):
        await Bench(harness).open()


async def test_no_secret_of_the_service_is_in_the_agent_or_its_children(bench: Bench, harness: LocalHarness) -> None:
    await bench.start(argv=["sleep", "30"])
    for pid in harness.processes():
        for file in ("environ", "cmdline"):
            with open(f"/proc/{pid}/{file}", "rb") as opened:  # noqa: ASYNC230, PTH123  memory, not a disk
                assert b"correct-horse-battery" not in opened.read()


async def test_an_idle_agent_and_its_zygote_do_nothing_at_all(bench: Bench, harness: LocalHarness) -> None:
    await bench.run(argv=["true"])
    await bench.until(lambda: not harness.leftovers(), "the attempt is tidied up")
    bench.reconciles = False
    await asyncio.sleep(1.3)  # the last look for something unanswered
    pids = harness.processes()
    assert len(pids) == 2
    before = [_switches(pid) for pid in pids]
    await asyncio.sleep(1.5)
    assert [_switches(pid) for pid in pids] == before


async def test_a_second_agent_of_the_same_home_gives_way(bench: Bench, harness: LocalHarness) -> None:
    first = harness._agent()
    second = spawn.spawn(settings_of(harness), environment.allowed(os.environ))
    assert await exit_code(second) == 3
    assert (await bench.run(argv=["true"])).state == "success"
    assert harness._agent() == first


async def test_an_agent_without_service_and_attempts_ends_by_itself(harness: LocalHarness) -> None:
    spawn.prepare(harness.home, Bench(harness).context.entropy)
    pid = spawn.spawn(settings_of(harness, patience=0.2), environment.allowed(os.environ))
    assert await exit_code(pid) == 0
    assert harness.processes() == []
    assert not (harness.home / "agent" / "socket").exists()


async def test_an_idle_agent_with_other_settings_is_replaced(harness: LocalHarness) -> None:
    bench = Bench(harness)
    spawn.prepare(harness.home, bench.context.entropy)
    old = spawn.spawn(settings_of(harness, version="0.0.1+other"), environment.allowed(os.environ))
    try:
        await bench.open()
        assert harness._agent() != old
        assert (await bench.run(argv=["true"])).state == "success"
    finally:
        await bench.close()
        spawn.has_ended(old)


async def test_a_busy_agent_with_other_settings_is_used_until_it_is_idle(harness: LocalHarness) -> None:
    bench = Bench(harness)
    await bench.open()
    try:
        old = harness._agent()
        attempt = await bench.start(shell="echo up >> $JOURNAL; sleep 1", env=bench.env())  # noqa: S604  a task's own field
        await bench.until(lambda: bench.lines("journal"), "it runs")
        harness.executor.abandon()  # type: ignore[union-attr]  # it was opened above
        os.environ["TZ"] = "Asia/Tokyo"
        try:
            bench.executor = await harness._start(bench.context, sys.executable)
        finally:
            del os.environ["TZ"]
        assert harness._agent() == old
        assert (await bench.end_of(attempt)).state == "success"
        row = await bench.run(shell="echo $TZ")  # noqa: S604  a task's own field
        assert bench.log(row.attempt_id) == b"Asia/Tokyo\n"
        assert harness._agent() != old
    finally:
        await bench.close()


async def test_an_agent_of_another_protocol_is_drained_and_replaced(
    bench: Bench, harness: LocalHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = harness._agent()
    shell = "echo up >> $JOURNAL; sleep 0.5; echo 1 > $RUNYARD_OUTPUT"
    attempt = await bench.start(shell=shell, env=bench.env())
    await bench.until(lambda: bench.lines("journal"), "it runs")
    bench.reconciles = False
    with monkeypatch.context() as patch:
        patch.setattr(service_side, "PROTOCOL", 2)
        await harness.drop_connection()
        await bench.until(lambda: not is_alive(old), "the old agent ended by itself", within=15)
    bench.reconciles = True
    row = await bench.end_of(attempt)
    assert (row.state, row.output()) == ("success", 1)
    assert harness._agent() != old


async def test_sigterm_to_the_agent_drains_it_and_another_one_takes_over(bench: Bench, harness: LocalHarness) -> None:
    attempt = await bench.start(shell="echo up >> $JOURNAL; sleep 60", env=bench.env())  # noqa: S604  a task's own field
    await bench.until(lambda: bench.lines("journal"), "it runs")
    os.kill(harness._agent(), signal.SIGTERM)
    assert (await bench.end_of(attempt)).state == "drained"
    assert (await bench.run(argv=["true"])).state == "success"


async def test_with_agent_and_zygote_killed_at_once_nothing_is_left(bench: Bench, harness: LocalHarness) -> None:
    shell = "setsid sh -c 'trap \"\" HUP; echo $$ >> $JOURNAL; exec sleep 70' & echo $$ >> $JOURNAL; sleep 71"
    attempt = await bench.start(shell=shell, env=bench.env())
    await bench.until(lambda: len(bench.lines("journal")) == 2, "it runs")
    agent, zygote = harness._agent(), linux.descendants(harness._agent())[0]
    os.kill(zygote, signal.SIGSTOP)  # so that it cannot clean up
    os.kill(agent, signal.SIGKILL)
    os.kill(zygote, signal.SIGKILL)
    assert (await bench.end_of(attempt)).state == "lost"
    assert [pid for pid in bench.lines("journal") if is_alive(int(pid))] == []


async def test_a_task_that_arrives_again_is_not_run_again(bench: Bench, harness: LocalHarness) -> None:
    attempt = await bench.queue(shell="echo once >> $JOURNAL; sleep 0.3", env=bench.env())  # noqa: S604  a task's own field
    await bench.launch(attempt)
    await bench.until(lambda: bench.lines("journal"), "it runs")
    task: Message = {"type": "task", "attempt_id": attempt, "body": bench.row(attempt).body}
    harness._client()._send(task)
    assert (await bench.end_of(attempt)).state == "success"
    await bench.phase(attempt, Phase.GONE)
    harness._client()._send(task)
    await bench.run(argv=["true"])
    assert bench.lines("journal") == ["once"]


async def test_stopping_before_the_agent_has_answered_leaves_nothing(harness: LocalHarness) -> None:
    bench = Bench(harness)
    executor = registry.make(
        ExecutorConfig(
            name="local",
            home=harness.home,
            code_dir=harness.code_dir,
            log_dir=harness.home / "logs",
            task_python=sys.executable,
            parallelism=1,
        )
    )
    await executor.start(bench.context)
    assert executor.health().status is HealthStatus.DOWN
    await executor.stop(drain=timedelta(seconds=1))
    await bench.until(lambda: not harness.processes(), "agent and zygote are gone")


async def test_two_executors_share_one_agent_and_keep_their_slots(bench: Bench, harness: LocalHarness) -> None:
    other = LocalHarness("sequential", 1, harness.scratch.parent)
    sequential = await other._start(bench.context, sys.executable)
    assert other._agent() == harness._agent()
    one, two = await bench.queue_many(2, argv=["sleep", "0.3"])
    bench.reconciles = False
    results = await sequential.launch([Launch(one), Launch(two)])
    assert [type(result).__name__ for result in results] == ["Accepted", "Deferred"]
    # As after a crash between a start and its answer: it has its slot in the metastore, and nobody else would run it.
    results = await sequential.launch([Launch(two, started=True)])
    assert [type(result).__name__ for result in results] == ["Accepted"]
    await sequential.stop(drain=timedelta(0))
    assert (await bench.end_of(one)).state == "success"
    assert (await bench.run(argv=["true"])).state == "success"


def interpreters() -> list[str]:
    """Return the other Pythons of this machine that tasks may run on."""
    found = [shutil.which(f"python3.{minor}") for minor in range(9, 20) if minor != sys.version_info.minor]
    return [python for python in found if python and not subprocess.run([python, "-c", ""], check=False).returncode]


@pytest.mark.parametrize("python", interpreters() or [pytest.param("", marks=pytest.mark.skip("no other Python here"))])
async def test_tasks_run_on_any_interpreter_of_the_user(harness: LocalHarness, python: str) -> None:
    bench = Bench(harness)
    try:
        bench.executor = await harness._start(bench.context, python)
        row = await bench.run(source="import sys\ndef main():\n    return list(sys.version_info[:2])\n")
        assert f"python3.{row.output()[1]}" in python  # type: ignore[index]  # it returns a list
        row = await bench.run(argv=["python", "-c", "import sys; print(sys.version_info[1])"])
        assert bench.log(row.attempt_id).decode().strip() in python
        row = await bench.run(source="def main():\n    raise ValueError('no')\n")
        assert row.ending["error"] == "ValueError: no"
    finally:
        await bench.close()


SERVICE = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from executors.conformance import Bench
from tests.conformance.local_harness import LocalHarness

async def main():
    harness = LocalHarness("local", 4, Path(sys.argv[2]))
    bench = Bench(harness)
    await bench.open()
    shell = "echo up >> $JOURNAL; for i in 1 2 3 4 5; do echo $i; sleep 0.2; done; echo '[5]' > $RUNYARD_OUTPUT"
    attempt = await bench.start(shell=shell, env=bench.env())  # noqa: S604  a task's own field
    await bench.until(lambda: bench.lines("journal"), "it runs")
    print(attempt, bench.row(attempt).boot_id, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_task_outlives_the_kill_of_its_service(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVICE, str(REPOSITORY), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:  # noqa: ASYNC220  a moment is fine
        assert service.stdout is not None
        lines = iter(service.stdout.readline, "")
        said = await asyncio.to_thread(lambda: next(line for line in lines if len(line.split()) == 2))
        service.kill()
    attempt, boot_id = said.split()
    harness = LocalHarness("local", 4, tmp_path)
    bench = Bench(harness)
    try:
        known = await bench.queue(argv=["not what it runs"])
        row = bench.metastore.rows.pop(known)
        row.attempt_id = attempt  # type: ignore[assignment]  # text that another process printed
        row.boot_id = boot_id
        row.become("running")
        bench.metastore.rows[row.attempt_id] = row
        await bench.open()
        assert (await bench.phase(row.attempt_id, Phase.RUNNING, Phase.EXITED)).boot_id == boot_id
        await bench.end_of(row.attempt_id)
        assert (row.state, row.output(), bench.log(row.attempt_id)) == ("success", [5], b"1\n2\n3\n4\n5\n")
        assert bench.lines("journal") == ["up"]
    finally:
        await bench.close()


def _switches(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if "ctxt_switches" in line)
