"""The documentation page in a real browser, cut off from every other host; judged by the words that a person reads."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.system.service import Service

if TYPE_CHECKING:
    from pathlib import Path

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here; .ci/run installs Debian's")


class Page:
    """What a browser made of a page."""

    def __init__(self, dom: str, console: str) -> None:
        self.dom = dom
        self.console = console
        without_code = re.sub(r"(?s)<(script|style)\b.*?</\1>", " ", dom)
        self.text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", without_code)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder: Path = tmp_path_factory.mktemp("browser")
    service = Service(folder / "home")
    try:
        service.start()
        done = subprocess.run(
            [
                str(BROWSER),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-dev-shm-usage",
                f"--user-data-dir={folder / 'profile'}",
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
                "--enable-logging=stderr",
                "--virtual-time-budget=10000",
                "--dump-dom",
                f"{service.url}/docs",
            ],
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
    finally:
        service.end()
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return Page(done.stdout, console)


def test_the_page_works_without_any_other_host_and_without_complaints(page: Page) -> None:
    assert page.console == ""
    addresses = re.findall(r'(?:src|href)="(https?://[^"]+)"', page.dom)
    assert [address for address in addresses if "127.0.0.1" not in address] == []


def test_the_chapters_come_in_the_order_in_which_they_are_needed(page: Page) -> None:
    chapters = re.findall(r'<h2 id="tag-([^"]+)"', page.dom)
    users = ["dags", "runs", "tasks", "logs", "events", "executors", "workers", "api-keys"]
    assert chapters == [*users, "worker-protocol", "operation"]


@pytest.mark.parametrize(
    "words",
    [
        "Put a DAG",
        "Trigger a run",
        "Cancel a run",
        "Clear tasks to run them again",
        "Read or follow the log of a task",
        "Read or stream the events of a run",
        "Idempotency-Key",
        "scope: define",
        "scope: work",
        "Start an attempt",
        "attempt key",
    ],
)
def test_a_reader_finds(page: Page, words: str) -> None:
    assert words in page.text


def test_examples_name_this_service_and_can_be_pasted(page: Page) -> None:
    assert "Bearer $TICKET" in page.text
    assert re.search(r"curl -X PUT http://127\.0\.0\.1:\d+/api/v1/dags/dice", page.text)
