"""The wheel holds what it should, and works where nothing else is."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"dag", "metastore", "scheduler", "executors", "worker", "api", "runyard"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it, its dependencies borrowed from this one: no registry is asked."""
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(place), "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", str(wheel)], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    borrowed = site.parent / "borrowed"
    borrowed.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name.partition("-")[0] not in PACKAGES | {"_runyard.pth", "__pycache__"}:
            (borrowed / entry.name).symlink_to(entry)
    (site / "borrowed.pth").write_text(f"{borrowed}\n")
    return place


def test_the_wheel_holds_our_packages_and_nothing_else(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    (metadata,) = tops - PACKAGES
    assert tops == PACKAGES | {metadata}
    assert metadata.endswith(".dist-info")


def test_the_wheel_ships_the_migrations_under_the_metastore(names: set[str]) -> None:
    shipped = {name.removeprefix("metastore/migrations/") for name in names if name.startswith("metastore/migrations/")}
    here = {
        path.relative_to(ROOT / "alembic").as_posix()
        for path in (ROOT / "alembic").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == here
    assert "env.py" in shipped


def test_the_wheel_holds_every_file_of_our_packages(names: set[str]) -> None:
    here = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here <= names


def test_the_wheel_carries_the_licence_and_the_entry_points(wheel: Path, names: set[str]) -> None:
    assert any(name.endswith("/LICENSE") for name in names)
    (points,) = (name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(wheel).read(points).decode()
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, target in declared["entry-points"]["runyard.executors"].items():
        assert f"{name} = {target}" in text
    assert f"runyard = {declared['scripts']['runyard']}" in text


def test_an_installed_wheel_migrates_and_knows_its_release(installed: Path, tmp_path: Path) -> None:
    environ = {"RUNYARD_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}

    def runyard(*args: str) -> str:
        done = subprocess.run(
            [installed / "bin" / "runyard", *args],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert runyard("db", "current") == "none\n"
    assert runyard("db", "upgrade").startswith("brought to revision ")
    assert runyard("db", "upgrade").startswith("already at revision ")
    assert "as this release needs it" in runyard("db", "check")
    assert (tmp_path / "home" / "runyard.db").stat().st_mode & 0o777 == 0o600
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert runyard("version").startswith(f"runyard {version} ")


def test_an_installed_wheel_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    code = "import metastore.migrate as m; print(m.__file__); print(m._PACKAGED.is_dir())"
    done = subprocess.run(
        [installed / "bin" / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    where, packaged = done.stdout.splitlines()
    assert Path(where).is_relative_to(installed)
    assert packaged == "True"
