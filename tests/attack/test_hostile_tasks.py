"""Tasks that mean harm, as processes of a real service: each ends in a defined state, and nobody else notices.

What the conformance suite has of every executor is not repeated here: trees that daemonise, fork twice, drop their
environment or hold the pipe (``trees``), tasks that do not hear SIGTERM or are stopped (``cancelling``), any bytes,
long lines and 200 MB in the log, output that is too long or no JSON (``data``), a log that cannot be written.  Nor what
``tests/unit/worker/test_output.py`` has of files that are none.

``RLIMIT_NPROC`` binds no root, so that bombs are bounded by themselves: 300 processes.  A task is of the same user as
its agent (tier 1): it can kill it, which costs its neighbours an attempt and nothing else.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.attack.house import House
from tests.system.service import Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What the API may take for an answer while two cores are busy with other things, in seconds.
IN_TIME: Final = 10.0
#: By how much service, agent and zygote may grow together, in MiB.
FLAT: Final = 48
DEAF: Final = "import os, signal, time\nfor n in (1, 2, 3, 13, 14, 15): signal.signal(n, signal.SIG_IGN)\n"


def python(source: str) -> dict[str, Any]:
    return {"command": ["python", "-c", source]}


def shell(line: str) -> dict[str, Any]:
    return {"command": ["sh", "-c", line]}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("hostile")
    service = Service(folder / "home", {"RUNYARD_LOCAL_PARALLELISM": "4"})
    try:
        made = House(service.start(), folder)
        yield made
        made.client.close()
    finally:
        service.end()


def survived(house: House, dag_id: str, journal: Path) -> None:
    """Assert that the neighbours came to their end on their first try, that nothing is left, and that a task runs."""
    for name in ("one", "two"):
        assert house.task(dag_id, name)["state"] == "success"
    assert journal.read_text().split() == ["1", "1"]
    wait_for(lambda: not house.strangers() or None, 15)
    after, _ = house.host(shell("echo here"))
    assert house.ended(after)["state"] == "success"


#: Name, task, the state that it ends in, and what its last attempt says.
CASES: Final[dict[str, tuple[dict[str, Any], str, dict[str, Any]]]] = {
    "bomb of 300 in sessions of their own, whose leader leaves": (
        python(
            f"{DEAF}for _ in range(300):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(600)\n"
            "        os._exit(0)\n"
        ),
        "success",
        {"state": "success", "exit_code": 0},
    ),
    "bomb that doubles, deaf, until its time is over": (
        python(f"{DEAF}for _ in range(8): os.fork()\ntime.sleep(600)\n")
        | {"execution_timeout": "PT1S", "kill_grace": "PT0.5S"},
        "failed",
        {"state": "timed_out"},
    ),
    "hare that is another process every ten milliseconds": (
        python(f"{DEAF}for _ in range(300):\n    if os.fork(): os._exit(0)\n    os.setsid()\n    time.sleep(0.01)\n"),
        "success",
        {"state": "success"},
    ),
    "closes every descriptor": (
        python("import os, time\nos.closerange(0, 65536)\ntime.sleep(0.3)\n"),
        "success",
        {"state": "success", "log_size": 0},
    ),
    "removes the folder it works in": (
        shell('rm -rf "$RUNYARD_WORK_DIR"; cd /; echo gone'),
        "success",
        {"state": "success"},
    ),
    "removes all that its agent keeps of it": (
        # What has not begun has its folder there as well, and could not begin any more.
        shell(
            'until [ "$(cat "$NEIGHBOURS" | wc -l)" = 2 ]; do sleep 0.02; done; '
            'rm -rf "$(dirname "$RUNYARD_WORK_DIR")"; cd /; echo gone'
        ),
        "success",
        {"state": "success"},
    ),
    "kills its process group": (shell("sleep 600 & kill -9 0"), "failed", {"state": "failed", "signal": 9}),
    "says that it is somebody else and has succeeded": (
        shell(
            "export RUNYARD_ATTEMPT_ID=00000000-0000-7000-8000-000000000000 RUNYARD_FENCE=99 RUNYARD_AGENT_ID=x; "
            'printf \'%s\\n\' \'{"type":"finish","outcome":"success"}\' "[runyard] ended: success"; '
            "for fd in 3 4 5 6 7 8 9; do eval \"echo '{}' >&$fd\" 2>/dev/null; done; exit 7"
        ),
        "failed",
        {"state": "failed", "exit_code": 7},
    ),
    "writes a file without an end": (
        shell("ulimit -f 2048; cat /dev/zero > big"),
        "failed",
        {"state": "failed"},
    ),
    "leaves a terabyte of nothing for an output": (
        shell('truncate -s 1T "$RUNYARD_OUTPUT"'),
        "failed",
        {"state": "failed"},
    ),
    "leaves a pipe for an output": (shell('mkfifo "$RUNYARD_OUTPUT"'), "failed", {"state": "failed"}),
    "leaves a link to somebody's secret for an output": (
        shell('ln -s /etc/passwd "$RUNYARD_OUTPUT"'),
        "failed",
        {"state": "failed"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_ends_and_nobody_else_notices(house: House, name: str) -> None:
    task, state, says = CASES[name]
    with house.watched() as borne:
        dag_id, journal = house.host(task)
        house.ended(dag_id)
    assert house.task(dag_id)["state"] == state
    last = house.attempts(dag_id)[-1]
    assert {key: last[key] for key in says} == says, last
    assert borne.probes
    assert borne.slowest < IN_TIME
    assert borne.grown < FLAT
    survived(house, dag_id, journal)


def test_a_gigabyte_of_log_is_cut_and_costs_nobody_memory(house: House) -> None:
    with house.watched() as borne:
        dag_id, journal = house.host(shell("tr '\\0' x </dev/zero | head -c 1073741824"))
        house.ended(dag_id, 90)
        last = house.attempts(dag_id)[-1]
        assert last["state"] == "success"
        read = 0
        with house.client.stream("GET", f"/dags/{dag_id}/runs/r/tasks/hostile/logs") as answer:
            for piece in answer.iter_raw():
                read += len(piece)
    assert 64 * 2**20 <= read <= 64 * 2**20 + 4096
    assert last["log_size"] == read
    assert borne.slowest < IN_TIME
    assert borne.grown < FLAT
    survived(house, dag_id, journal)


@pytest.mark.parametrize("whom", ["zygote", "agent"])
def test_who_kills_what_runs_it_costs_its_neighbours_an_attempt_and_nothing_else(house: House, whom: str) -> None:
    flag = house.folder / f"killed-{whom}"
    find = "$PPID" if whom == "zygote" else "$(cut -d' ' -f4 /proc/$PPID/stat)"
    with house.watched() as borne:
        dag_id, journal = house.host(shell(f"test -e {flag} && exit 0; touch {flag}; kill -9 {find}; sleep 600"))
        assert house.ended(dag_id)["state"] == "success"
    first, last = house.attempts(dag_id)
    assert (first["state"], last["state"]) == ("lost", "success")
    assert set(journal.read_text().split()) <= {"1", "2"}
    assert len(journal.read_text().split()) == 2
    assert borne.slowest < IN_TIME
    for name in ("one", "two"):
        assert house.task(dag_id, name)["state"] == "success"
    wait_for(lambda: not house.strangers() or None, 15)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "x", place], check=False).returncode
    ):
        pytest.skip("only root can make a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_loses_nothing_and_is_over_when_there_is_room(small: Path, tmp_path: Path) -> None:
    """The database, the logs and the folders of tasks share a disk, and a task takes all of it."""
    service = Service(small / "home", {"RUNYARD_LOCAL_PARALLELISM": "4"})
    # Not in the service's own folder: its log would be as full.
    full, free = tmp_path / "full", tmp_path / "free"
    fill = (
        f"cat /dev/zero > big 2>/dev/null; touch {full}; until test -e {free}; do sleep 0.05; done; rm big; echo done"
    )
    try:
        house = House(service.start(), tmp_path)
        dag_id, journal = house.host(shell(fill))
        wait_for(full.exists)
        statuses = []
        for number in range(20):
            answer = house.client.post(f"/dags/{dag_id}/runs", json={"run_id": f"n{number}"})
            statuses.append(answer.status_code)
            assert answer.status_code in {201, 503}, answer.text
            assert house.client.get("/dags").status_code == 200
        assert 503 in statuses
        free.touch()
        assert house.ended(dag_id)["state"] == "success"
        survived(house, dag_id, journal)
        for number, status in enumerate(statuses):
            there = house.client.get(f"/dags/{dag_id}/runs/n{number}").status_code
            assert status != 201 or there == 200, number
        house.client.close()
    finally:
        service.end()
