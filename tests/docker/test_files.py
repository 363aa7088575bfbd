"""The Dockerfile, the Compose file and their page agree with the code and with each other."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from runyard import settings
from runyard.cli import ENTRIES, app
from tests.docker.compose import MissingVariable, read
from tests.docker.dockerfile import Stage, pairs, parse

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose.yaml"
SECRETS = {"POSTGRES_PASSWORD": "one", "REDIS_PASSWORD": "two"}
#: What a service of ours may be told; all of it is in docs/reference/settings.md.
KNOWN = {
    f"RUNYARD_{name.upper()}"
    for one in (settings.Settings, settings.WorkerSettings, settings.ClientSettings)
    for name in one.model_fields
}


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    return parse((DOCKER / "Dockerfile").read_text())[1]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = read(COMPOSE, SECRETS)["services"]
    return found


def ours(services: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in services.items() if one["image"] == "runyard"}


def test_the_image_is_built_from_hashed_lists_alone(stages: list[Stage]) -> None:
    runs = " && ".join(step.text for stage in stages for step in stage.steps if step.name == "RUN")
    installs = [command for command in runs.split("&&") if " install " in command and "pip" in command]
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes --" in command or "--no-index --no-deps" in command, command
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements/image.txt").read_text(), re.MULTILINE))
    assert {"dramatiq", "redis", "pika", "celery"} <= locked


def test_every_package_of_the_wheel_is_copied_and_not_ignored(stages: list[Stage]) -> None:
    copied = {step.words()[0] for step in stages[0].steps if step.name == "COPY"}
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {*target["packages"], *target["force-include"]}
    assert wanted <= copied
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert wanted | {"requirements", "pyproject.toml", "README.md", "LICENSE"} == let_in


def test_what_runs_is_nobody_special_and_is_what_the_image_says(stages: list[Stage]) -> None:
    last = {step.name: step for step in stages[-1].steps}
    assert last["USER"].text == "10001:10001"
    assert last["ENTRYPOINT"].words() == ["runyard"]
    assert last["CMD"].words()[0] in ENTRIES
    assert last["HEALTHCHECK"].text == 'CMD ["runyard", "health"]'
    environment = pairs(last["ENV"].text)
    assert {name for name in environment if name.startswith("RUNYARD_")} <= KNOWN
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"VERSION={version}" in [step.text for step in stages[-1].steps if step.name == "ARG"]


def test_nothing_secret_is_in_the_image(stages: list[Stage]) -> None:
    for step in (step for stage in stages for step in stage.steps):
        assert step.name not in ("ADD", "ONBUILD"), step
        assert step.name not in ("ARG", "ENV") or not re.search("(?i)password|secret|token|_key", step.text), step


def test_every_service_runs_a_command_that_there_is(services: dict[str, Any]) -> None:
    group = typer.main.get_group(app)
    with group.make_context("runyard", [], resilient_parsing=True) as context:
        for name, service in ours(services).items():
            command: Any = group.get_command(context, service["command"][0])
            rest = service["command"][1:]
            if hasattr(command, "commands"):
                command = command.get_command(context, rest.pop(0))
            assert command is not None, name
            options = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= options, name


def test_every_variable_is_a_setting(services: dict[str, Any]) -> None:
    for name, service in ours(services).items():
        assert set(service["environment"]) <= KNOWN, name


def test_services_are_walled_in(services: dict[str, Any]) -> None:
    for name, service in ours(services).items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["init"] is False, name
        assert not service.get("user"), name
    for name, service in services.items():
        for entry in service.get("ports", []):
            assert entry.startswith("127.0.0.1:"), name


def test_workers_hold_nothing_of_the_database(services: dict[str, Any]) -> None:
    worker = services["worker"]
    assert not [value for value in worker["environment"].values() if SECRETS["POSTGRES_PASSWORD"] in value]
    assert set(worker["networks"]) & set(services["postgres"]["networks"]) == set()
    key = worker["environment"]["RUNYARD_API_KEY_FILE"]
    assert key == services["api"]["environment"]["RUNYARD_WORKER_KEY_FILE"]
    assert f"keys:{Path(key).parent}" in services["api"]["volumes"]
    assert f"keys:{Path(key).parent}:ro" in worker["volumes"]


def test_what_a_service_talks_to_is_in_one_of_its_networks(services: dict[str, Any]) -> None:
    for name, service in ours(services).items():
        for value in service["environment"].values():
            for other in set(services) & set(re.findall(r"[@/]([a-z]+):\d+", value)):
                assert set(service["networks"]) & set(services[other]["networks"]), (name, other)


def test_dependencies_wait_for_something_that_can_come_true(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_completed_successfully":
                assert services[other]["restart"] == "no", (name, other)
            else:
                assert wanted["condition"] == "service_healthy", (name, other)
                assert not services[other].get("healthcheck", {}).get("disable"), (name, other)


def test_volumes_and_networks_are_declared_and_used(services: dict[str, Any]) -> None:
    whole = yaml.safe_load(COMPOSE.read_text())
    named = {
        entry.partition(":")[0]
        for service in services.values()
        for entry in service.get("volumes", [])
        if not entry.startswith(("/", ".", "$"))
    }
    assert named == set(whole["volumes"])
    assert {one for service in services.values() for one in service["networks"]} == set(whole["networks"])


def test_nothing_starts_without_its_passwords() -> None:
    for name in SECRETS:
        with pytest.raises(MissingVariable, match=f"{name}: write docker/.env first"):
            read(COMPOSE, {**SECRETS, name: ""})


def test_redis_keeps_what_it_acknowledges_and_shows_no_password(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]
    assert "--appendonly yes" in command[-1]
    assert "--maxmemory-policy noeviction" in command[-1]
    assert SECRETS["REDIS_PASSWORD"] not in " ".join(command)


def test_the_page_makes_passwords_that_the_file_takes(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (DOCKER / "README.md").read_text(), re.DOTALL)
    lines = [line for line in blocks[0].splitlines() if not line.startswith("docker ")]
    subprocess.run(["sh", "-ec", "\n".join(lines)], cwd=tmp_path, check=True)
    made = dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())
    assert set(made) == set(SECRETS)
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in made.values())
    assert len(set(made.values())) == 2
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    read(COMPOSE, made)


def test_the_page_lists_what_can_be_set() -> None:
    asked = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text())) - set(SECRETS)
    listed = set(re.findall(r"^\| (.*?) \|", (DOCKER / "README.md").read_text(), re.MULTILINE))
    assert asked == {name for cell in listed for name in re.findall(r"`([A-Z_]+)`", cell)}


def test_compose_itself_takes_the_file(tmp_path: Path) -> None:
    tool = next((one for one in (["docker", "compose"], ["docker-compose"]) if _is_there(one)), None)
    if tool is None:
        pytest.skip("no Compose of version 2 on this machine; it needs no engine for this")
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    options = ["--env-file", str(tmp_path / ".env"), "--file", str(COMPOSE), "config", "--quiet"]
    done = subprocess.run([*tool, *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def _is_there(tool: list[str]) -> bool:
    if shutil.which(tool[0]) is None:
        return False
    said = subprocess.run([*tool, "version"], capture_output=True, text=True, check=False).stdout
    return re.search(r"Compose version v?[2-9]", said) is not None
