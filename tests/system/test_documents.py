"""What the README and the quickstart tell people to paste does what they say."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.system.service import PLAIN, ROOT, RUNYARD, Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def newcomer(make_service: Callable[..., Service], tmp_path: Path) -> Service:
    """A service as ``make run`` starts it, its home where the pages say."""
    made = make_service(".runyard", RUNYARD_CODE_DIR=str(ROOT / "examples"))
    made.start("--port", "0", "--apply", str(ROOT / "examples"))
    wait_for(lambda: len(made.ask("dags")) == 2)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    return made


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if not block.startswith("make ")]


def paste(service: Service, folder: Path, text: str) -> str:
    """Paste *text* into a shell in *folder*, and return what it shows."""
    here = text.replace("http://127.0.0.1:8080", service.url).replace("$PWD/.venv/bin", str(RUNYARD.parent))
    here = here.replace(".venv/bin/runyard", str(RUNYARD))
    done = subprocess.run(
        ["sh", "-eu"],
        input=here,
        env={**PLAIN, "HOME": str(folder), "RUNYARD_API_URL": service.url},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_shows_what_happens(newcomer: Service, tmp_path: Path) -> None:
    over_http, by_command = blocks("README.md", "sh")
    said = paste(newcomer, tmp_path, over_http)
    assert '"version":1' in said
    assert '"state":"success"' in said
    assert said.endswith("20 and 22\n")
    assert "greeting | Hello, YOU!" in paste(newcomer, tmp_path, by_command)


def test_the_quickstart_works_as_it_is_written(newcomer: Service, tmp_path: Path) -> None:
    (words,) = blocks("docs/quickstart.md", "yaml")
    (tmp_path / "words.yaml").write_text(words)
    pasted = blocks("docs/quickstart.md", "sh")
    said = paste(newcomer, tmp_path, "\n".join(pasted))
    assert "greeting success" in said
    assert "report | **/checkout failed" in said
    assert "created    words" in said
    assert re.search(r"say \| +\d+ \S+/docs/reference/cli\.md", said)
    assert '"name":"HTTP"' in said
    assert "dashboard" in said
    http = next(block for block in pasted if "Idempotency-Key" in block)
    first, again = (paste(newcomer, tmp_path, http).splitlines()[-1] for _ in range(2))
    assert first == again


def test_the_guides_dags_do_what_the_guide_says(newcomer: Service, tmp_path: Path) -> None:
    said = {}
    for number, block in enumerate(blocks("docs/guides/writing-dags.md", "yaml")):
        (tmp_path / f"{number}.yaml").write_text(block)
        (applied,) = newcomer.ask("apply", "-f", str(tmp_path / f"{number}.yaml"))
        run = newcomer.watch("trigger", applied["dag_id"], "--run-id", "r", "--follow")
        said[applied["dag_id"]] = run.communicate(timeout=30)[0]
    assert said.keys() == {"outputs", "safe_shell", "clean_up"}
    assert "say | there are 2 files; the first is a\n" in said["outputs"]
    assert "greet | HELLO, YOU; ECHO OWNED\n" in said["safe_shell"]
    assert {"tidy | tidied", "alarm | alarm"} <= set(said["clean_up"].splitlines())
    assert said["clean_up"].splitlines()[-1].startswith("failed")
