"""Collecting a history from a running service, for the independent checker: events, journal of tasks, log of clients.

What the API gives is checked; the database is asked only for what the API does not tell: in which order the events of
different runs were written, and what limits hold.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import httpx

from metastore.settings import DatabaseSettings
from tests.databases import elsewhere
from tests.simulation.checker import Report, check
from tests.system.hosts import left_behind, uptime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

Line = dict[str, Any]


class Target(Protocol):
    """A service, or an installation of several processes."""

    url: str
    home: Path
    environ: dict[str, str]

    @property
    def key(self) -> str: ...

    @property
    def homes(self) -> list[Path]: ...


#: One line each time, whole: O_APPEND, and shorter than a page.
_SAY: Final = (
    "say() { read -r up rest < /proc/uptime; "
    'echo "$1 $RUNYARD_ATTEMPT_ID $RUNYARD_DAG_ID $RUNYARD_RUN_ID $RUNYARD_TASK_ID $RUNYARD_FENCE $up $2 $3" '
    '>> "$JOURNAL"; }; say start; '
)
_OUTPUT: Final = """printf '"%s"' "$RUNYARD_ATTEMPT_ID" > "$RUNYARD_OUTPUT"; """
_EVENTS: Final = "SELECT id, kind, dag_id, run_id, run_seq, actor, data FROM events ORDER BY id"
_LIMITS: Final = "SELECT key, capacity, used FROM limits"
_PAGE: Final = 1_000
_OK: Final = range(200, 300)


def journaling(body: str, journal: Path, *upstream: str, **fields: Any) -> dict[str, Any]:
    """Return a task that writes down its start, whose outputs it was given, and its end; *body* is shell in between.

    Its output is its own attempt id.  The body says ``say fail; exit 1`` to fail on purpose.
    """
    saw = "".join(f'say saw {name} "$FROM_{name}"; ' for name in upstream)
    env = {"JOURNAL": str(journal)} | {f"FROM_{name}": f"${{outputs.{name}}}" for name in upstream}
    command = f"{_SAY}{saw}{body}; {_OUTPUT}say end"
    return {"command": command, "shell": True, "env": env, "depends_on": list(upstream), **fields}


def read_journal(path: Path) -> list[Line]:
    """Return the lines that tasks wrote."""
    found = []
    for text in path.read_text().splitlines() if path.exists() else ():
        what, attempt_id, dag_id, run_id, task_id, fence, up, *saw = text.split(" ")
        line: Line = {"type": "task", "what": what, "attempt_id": attempt_id, "dag_id": dag_id, "run_id": run_id}
        line |= {"task_id": task_id, "map_index": -1, "fence": int(fence), "t": float(up)}
        if what == "saw":
            line |= {"from_task": saw[0], "from_attempt": None if saw[1] in ("", "null") else saw[1]}
        found.append(line)
    return found


@dataclass
class ClientLog:
    """Every request of every client, with its answer or without."""

    lines: list[Line] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def unanswered(self) -> int:
        """Requests whose answer never came."""
        return sum(line["type"] == "call" and line["status"] is None for line in self.lines)

    def has_read(self) -> bool:
        """Whether the state of a run was asked for and answered."""
        return any(line.get("op") == "read" and line["status"] in _OK for line in list(self.lines))

    def accepted(self) -> int:
        """Triggers that were answered 2xx, each key once."""
        return len({line["key"] for line in self.lines if line.get("op") == "trigger" and line["status"] in _OK})

    def ask(
        self,
        service: Target,
        op: str,
        dag_id: str,
        run_id: str | None = None,
        *,
        key: str | None = None,
        body: Any = None,
        client: str = "client",
    ) -> httpx.Response | None:
        """Send one request and write down what came of it; None: no answer."""
        method, path = _address(op, dag_id, run_id)
        line: Line = {"type": "call", "client": client, "op": op, "dag_id": dag_id, "run_id": run_id, "key": key}
        line |= {"body": None if op == "put" else body, "t0": uptime(), "status": None, "answer": None}
        answer = None
        try:
            answer = httpx.request(
                method,
                f"{service.url}/api/v1/{path}",
                json=body if method != "GET" else None,
                headers={"Authorization": f"Bearer {service.key}"} | ({"Idempotency-Key": key} if key else {}),
                timeout=5,
            )
            line |= {"status": answer.status_code, "t1": uptime(), "answer": answer.json() if answer.content else None}
        except (httpx.HTTPError, OSError):
            line["t1"] = uptime()
        with self._lock:
            self.lines.append(line)
        return answer

    def put(self, service: Target, dag_id: str, document: dict[str, Any]) -> None:
        """Define a DAG, and keep the document."""
        answer = self.ask(service, "put", dag_id, body=document)
        assert answer is not None
        assert answer.status_code in _OK, answer.text
        version = answer.json()["version"]
        with self._lock:
            self.lines.append({"type": "dag", "dag_id": dag_id, "version": version, "document": document})


def _address(op: str, dag_id: str, run_id: str | None) -> tuple[str, str]:
    dag, run = f"dags/{dag_id}", f"dags/{dag_id}/runs/{run_id}"
    return {
        "put": ("PUT", dag),
        "trigger": ("POST", f"{dag}/runs"),
        "cancel": ("POST", f"{run}/cancel"),
        "clear": ("POST", f"{run}/clear"),
        "read": ("GET", run),
    }[op]


def collect(service: Target, log: ClientLog, journal: Path, *, rest: bool = True, **setup: Any) -> list[Line]:
    """Return the history of everything that *log*'s clients did to a service that is at *rest*.

    What such a one still has of its tasks, processes and files, is told as left behind.  All of its tasks that run are
    made by :func:`journaling`.
    """
    settings = DatabaseSettings(service.environ.get("RUNYARD_DATABASE_URL", f"sqlite:///{service.home}/runyard.db"))
    told: dict[tuple[str, str, int], Line] = {}
    lines: list[Line] = []
    with httpx.Client(
        base_url=f"{service.url}/api/v1/", headers={"Authorization": f"Bearer {service.key}"}, timeout=30
    ) as client:
        for dag_id in sorted({line["dag_id"] for line in log.lines if line["type"] == "dag"}):
            for run in _pages(client, f"dags/{dag_id}/runs"):
                lines.append({"type": "run"} | {name: run[name] for name in ("dag_id", "run_id", "state", "version")})
                place = f"dags/{dag_id}/runs/{run['run_id']}"
                for event in _pages(client, f"{place}/events"):
                    told[dag_id, run["run_id"], event["seq"]] = {"type": "event", **event}
                lines += [_instance(run, task) for task in _pages(client, f"{place}/tasks")]
    left = left_behind(service.homes) if rest else []
    limits = _rows(settings, _LIMITS)
    lines += [{"type": "used", "key": row["key"], "used": row["used"]} for row in limits]
    capacities = {row["key"]: row["capacity"] for row in limits if row["key"].startswith("slots:")}
    return [
        {"type": "setup", "limits": capacities, "journal": True, **setup},
        *_in_order(told, _rows(settings, _EVENTS)),
        *read_journal(journal),
        *log.lines,
        *lines,
        *([{"type": "rest"}] if rest else []),
        *({"type": "left", "what": what} for what in left),
    ]


def judge(lines: Iterable[Line], keep: Path) -> Report:
    """Check a history; a bad one stays in the file *keep*, for ``python -m tests.simulation.checker``."""
    lines = list(lines)
    report = check(lines)
    if report.total:
        keep.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return report


def _instance(run: Mapping[str, Any], task: Mapping[str, Any]) -> Line:
    names = ("task_id", "map_index", "state", "try_number", "failures", "losses")
    return {"type": "instance", "dag_id": run["dag_id"], "run_id": run["run_id"]} | {name: task[name] for name in names}


def _in_order(told: dict[tuple[str, str, int], Line], rows: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    """Give the events that the API told the order in which they were written.

    Ids are drawn while the locks are held that order the transactions.
    """
    for row in rows:
        if row["run_id"] is None:
            yield {"type": "event", "kind": row["kind"], "dag_id": row["dag_id"], "actor": row["actor"]} | {
                "data": None if row["data"] is None else json.loads(row["data"])
            }
        else:
            yield told.pop((row["dag_id"], row["run_id"], row["run_seq"]))
    assert not told, "the API tells events that are not in the database"


def _pages(client: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
    cursor: str | None = None
    while True:
        answer = client.get(path, params={"limit": _PAGE} | ({"cursor": cursor} if cursor else {}))
        answer.raise_for_status()
        page = answer.json()
        yield from page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _rows(settings: DatabaseSettings, statement: str) -> list[dict[str, Any]]:
    if settings.dialect == "sqlite":
        conn = sqlite3.connect(f"file:{settings.path}?mode=ro", uri=True)
        conn.row_factory = sqlite3.Row
        found = [dict(row) for row in conn.execute(statement)]
        conn.close()
        return found

    async def fetch() -> list[dict[str, Any]]:
        asked = await asyncpg.connect(settings.asyncpg)
        try:
            return [dict(row) for row in await asked.fetch(statement)]
        finally:
            await asked.close()

    rows: list[dict[str, Any]] = elsewhere(fetch())
    return rows
