"""Requests and Python tasks in another interpreter, from the document to the output, through a real service."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from tests.unit.worker.http_server import answer, serving

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.service import Service

ORDERS = """
dag_id: orders
params: {type: object, properties: {base: {type: string}, other: {type: string}, day: {type: string}}}
defaults: {retries: 0}
tasks:
  fetch:
    http: {method: GET, url: "${params.base}/orders/${params.day}", query: {day: "${params.day}"}}
  count:
    python:
      interpreter: PYTHON
      source: "import os\\ndef main(rows): return {'rows': len(rows), 'other': os.environ.get('OTHER')}"
      args: ["${outputs.fetch.body.rows}"]
    depends_on: [fetch]
  tell:
    http:
      method: POST
      url: "${params.base}/tell"
      headers: {Authorization: "Bearer hunter2", X-Count: "${outputs.count.rows}"}
      json: {count: "${outputs.count}", text: "n=${outputs.count.rows}"}
    depends_on: [count]
  inside:
    http: {method: GET, url: "${params.other}"}
    allow_failure: true
"""


def test_a_dag_fetches_counts_and_tells(make_service: Callable[..., Service], tmp_path: Path) -> None:
    python = tmp_path / "other python"
    python.write_text(f'#!/bin/sh\nOTHER=yes exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    document = tmp_path / "orders.yaml"
    document.write_text(ORDERS.replace("PYTHON", str(python)))

    def talk(connection: socket.socket) -> None:
        body = b'{"rows": [1, 2, 3]}' if server.requests[-1].startswith(b"GET /orders/a%2Fb?day=a%2Fb ") else b"{}"
        connection.sendall(answer(body, "200 OK", "Content-Type: application/json"))

    with serving(talk) as server:
        made = make_service(RUNYARD_HTTP_ALLOW="127.0.0.1", RUNYARD_HTTP_PORTS=str(server.port)).start()
        made.ask("apply", "-f", str(document))
        given = {
            "base": server.url(""),
            "other": f"http://169.254.169.254:{server.port}/latest/meta-data/",
            "day": "a/b",
        }
        made.cli("trigger", "orders", "--run-id", "r", "--params-json", json.dumps(given), "--wait")
        tasks = {one["task_id"]: one for one in made.ask("tasks", "orders", "r")}
        assert {name: one["state"] for name, one in tasks.items()} == {
            "fetch": "success",
            "count": "success",
            "tell": "success",
            "inside": "failed",
        }
        assert len(server.requests) == 2
        head, _, body = server.requests[1].partition(b"\r\n\r\n")
        assert {b"Authorization: Bearer hunter2", b"X-Count: 3"} <= set(head.split(b"\r\n"))
        assert json.loads(body) == {"count": {"rows": 3, "other": "yes"}, "text": "n=3"}
        log = made.cli("logs", "orders", "r", "tell").stdout
        assert "POST http://127.0.0.1" in log
        assert "200 OK" in log
        assert "hunter2" not in log
        log = made.cli("logs", "orders", "r", "inside").stdout
        assert "an address of a metadata service" in log
        assert "RUNYARD_HTTP_ALLOW" in log
