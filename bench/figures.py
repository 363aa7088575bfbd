"""What a benchmark says: figures with their goals, as a table or as JSON."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from metastore.disk import file_system

Form = Literal["tables", "json", "markdown"]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound that the median has to keep."""

    value: float
    sense: Literal["at most", "at least"] = "at most"

    def kept_by(self, value: float) -> bool:
        return value <= self.value if self.sense == "at most" else value >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.sense == 'at most' else '≥'} {self.value:g}"


@dataclass(slots=True)
class Figure:
    """One measured quantity: a value a repeat."""

    name: str
    unit: str
    goal: Goal | None = None
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def kept(self) -> bool | None:
        """Whether the median keeps the goal; None without one."""
        return None if self.goal is None else self.goal.kept_by(self.median)

    def cells(self) -> tuple[str, ...]:
        low, high = min(self.values), max(self.values)
        shown = (
            _short(self.median) if len(self.values) == 1 else f"{_short(self.median)} ({_short(low)}-{_short(high)})"
        )
        verdict = {None: "", True: "reached", False: "NOT reached"}[self.kept]
        return self.name, f"{shown} {self.unit}".strip(), str(self.goal or ""), verdict


@dataclass(slots=True)
class Report:
    """The figures of one benchmark and the rates of the machine around them."""

    benchmark: str
    database: str | None = None
    figures: dict[str, Figure] = field(default_factory=dict)
    machine: dict[str, Figure] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, unit: str, value: float, goal: Goal | None = None) -> None:
        """Note the value of one repeat."""
        self.figures.setdefault(name, Figure(name, unit, goal)).values.append(value)

    def add_machine(self, name: str, unit: str, value: float) -> None:
        """Note what the machine itself did in this repeat."""
        self.machine.setdefault(name, Figure(name, unit)).values.append(value)

    def note(self, *texts: str) -> None:
        """Say what a figure includes, once."""
        self.notes += texts

    @property
    def title(self) -> str:
        return self.benchmark if self.database is None else f"{self.benchmark}, {self.database}"

    def rows(self) -> list[tuple[str, ...]]:
        return [figure.cells() for figure in self.figures.values()]

    def machine_rows(self) -> list[tuple[str, ...]]:
        return [figure.cells() for figure in self.machine.values()]

    def missed(self) -> list[str]:
        """Return the names of figures whose median does not keep its goal."""
        return [name for name, figure in self.figures.items() if figure.kept is False]

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "database": self.database,
            "figures": [_plain(figure) for figure in self.figures.values()],
            "machine": [_plain(figure) for figure in self.machine.values()],
            "notes": self.notes,
        }


def percentile(values: list[float], percent: float) -> float:
    """Return the smallest of *values* that *percent* of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def conditions() -> dict[str, Any]:
    """Return when and on what this was measured."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _COMMIT,
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "homes_on": file_system(tempfile.gettempdir(), Path("/proc/self/mountinfo").read_text()),
        "niceness": os.nice(0),
        "load_average": round(os.getloadavg()[0], 2),
    }


def show(reports: list[Report], form: Form) -> None:
    """Print *reports*, and the conditions that they were measured in."""
    around = conditions()
    if form == "json":
        print(json.dumps({"conditions": around, "reports": [report.as_json() for report in reports]}, indent=2))
        return
    said = ", ".join(f"{name} {value}" for name, value in around.items())
    if form == "markdown":
        print(_markdown(reports), f"\n{said}")
        return
    for report in reports:
        print(f"\n{report.title}")
        print(_table(report.rows(), "  "))
        if report.machine:
            print("  the machine itself in the same run:")
            print(_table(report.machine_rows(), "    "))
        for note in report.notes:
            print(f"  * {note}")
    print(f"\n{said}")
    print("median (min-max) over the repeats; a goal is reached when the median keeps it")


def _table(rows: list[tuple[str, ...]], indent: str) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join(
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _markdown(reports: list[Report]) -> str:
    lines = []
    for report in reports:
        lines += [f"\n**{report.title}**\n", "| figure | measured | goal | |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in report.rows()]
        lines += [f"| *{name}* | {shown} | | |" for name, shown, *_ in report.machine_rows()]
        lines += [f"\n{note}" for note in report.notes if not report.figures]
    return "\n".join(lines)


def _plain(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "unit": figure.unit,
        "median": figure.median,
        "min": min(figure.values),
        "max": max(figure.values),
        "values": figure.values,
        "goal": str(figure.goal) if figure.goal else None,
        "reached": figure.kept,
    }


def _short(value: float) -> str:
    """Three digits that count, and no more."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


#: As the first figure is measured: colleagues commit meanwhile.
_COMMIT = _commit()
