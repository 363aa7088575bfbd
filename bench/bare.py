"""A bare FastAPI application: what the framework and this machine give before Runyard does anything.

python -m bench.bare PORT
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from bench.figures import ROOT
from bench.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def bare() -> Iterator[str]:
    """Serve it in a process of its own; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-m", "bench.bare", str(port)], cwd=ROOT) as process:
        try:
            deadline = time.monotonic() + 30
            while not _answers(url):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError("the bare application did not start")
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/thing", timeout=2).is_success
    except httpx.TransportError:
        return False


def application() -> Any:
    """Return an application with one GET and one POST that reads a small body."""
    from fastapi import FastAPI  # noqa: PLC0415  # the process that measures does without
    from pydantic import BaseModel, Field  # noqa: PLC0415  # as above

    class Thing(BaseModel):
        name: str | None = None
        labels: dict[str, str] = Field(default_factory=dict)
        params: dict[str, Any] = Field(default_factory=dict)

    app = FastAPI()

    @app.get("/thing")
    async def get() -> dict[str, str]:
        return {"name": "thing"}

    async def post(thing: Thing) -> Thing:
        return thing

    post.__annotations__ = {"thing": Thing, "return": Thing}  # the class is local: its name means nothing outside
    app.post("/thing", status_code=201)(post)
    return app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(
        application(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
    )
