"""Reads a Dockerfile: as much of its language as ours uses, and an error for the rest."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: its name, its ``--flags``, and the rest as it stands there."""

    name: str
    flags: tuple[str, ...]
    text: str

    def words(self) -> list[str]:
        """Return the arguments, of the JSON form or of the plain one."""
        if self.text.startswith("["):
            return [str(word) for word in json.loads(self.text)]
        return shlex.split(self.text)


@dataclass(slots=True)
class Stage:
    """What stands between two ``FROM``."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)


def parse(text: str) -> tuple[list[Step], list[Stage]]:
    """Return the ``ARG`` in front of the first stage, and the stages."""
    before: list[Step] = []
    stages: list[Stage] = []
    for step in _steps(text):
        if step.name == "FROM":
            base, _, name = step.text.partition(" AS ")
            stages.append(Stage(base, name))
        elif stages:
            stages[-1].steps.append(step)
        else:
            before.append(step)
    return before, stages


def expand(text: str, known: dict[str, str]) -> str:
    """Put variables in their places; one that nobody set is a mistake here, not an empty string."""
    return _VARIABLE.sub(lambda found: known[found.group(1) or found.group(2)], text)


def pairs(text: str) -> dict[str, str]:
    """Return ``NAME=value …`` as a table, quotes removed."""
    return dict(word.split("=", 1) for word in shlex.split(text))


def _steps(text: str) -> list[Step]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [_step(line) for line in joined.splitlines()]


def _step(line: str) -> Step:
    name, _, rest = line.strip().partition(" ")
    flags = []
    while (rest := rest.lstrip()).startswith("--"):
        flag, _, rest = rest.partition(" ")
        flags.append(flag)
    return Step(name.upper(), tuple(flags), rest)
