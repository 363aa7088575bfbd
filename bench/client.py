"""A small client that keeps one connection: what benchmarks define, trigger and look at things with."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

_TIMEOUT = 300


class Client:
    """The API of one service, with its key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._conn = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return what a request answers that must succeed."""
        text = self.text(method, path, body)
        return json.loads(text) if text else None

    def text(self, method: str, path: str, body: object = None) -> str:
        sent = None if body is None else json.dumps(body)
        self._conn.request(method, f"/api/v1{path}", sent, self.headers)
        answer = self._conn.getresponse()
        text = answer.read().decode()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text}")
        return text

    def define(self, dag_id: str, tasks: dict[str, Any], **document: Any) -> None:
        self.call("PUT", f"/dags/{dag_id}", {"tasks": tasks, **document})

    def run(self, dag_id: str, wait: float = 120) -> dict[str, Any]:
        """Trigger a run and return it once it has ended well."""
        run: dict[str, Any] = self.call("POST", f"/dags/{dag_id}/runs?wait={wait}", {})
        if run["state"] != "success":
            raise RuntimeError(f"{dag_id}: the run is {run['state']}")
        return run

    def items(self, path: str, **query: object) -> list[dict[str, Any]]:
        """Return a whole collection."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            asked = query | {"limit": 1000} | ({"cursor": cursor} if cursor else {})
            page = self.call("GET", f"{path}?{urlencode(asked)}")
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def tasks(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the task instances of *run*, in the order of the document."""
        return self.items(f"/dags/{run['dag_id']}/runs/{quote(run['run_id'])}/tasks")

    def log(self, run: dict[str, Any], task_id: str) -> str:
        return self.text("GET", f"/dags/{run['dag_id']}/runs/{quote(run['run_id'])}/tasks/{task_id}/logs")

    def close(self) -> None:
        self._conn.close()
