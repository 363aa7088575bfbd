"""What was found wrong: an invariant, a sentence, and the lines that prove it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

Line = dict[str, Any]

#: Violations of one invariant that are listed; all of them are counted.
MOST_LISTED: Final = 20
#: Lines that prove one violation.
MOST_ROWS: Final = 12


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must not have happened."""

    invariant: str
    sentence: str
    rows: tuple[Line, ...]

    def __str__(self) -> str:
        proof = "".join(f"\n    {json.dumps(row, default=str)}" for row in self.rows)
        return f"{self.invariant}: {self.sentence}{proof}"


@dataclass(slots=True)
class Report:
    """Everything that was found wrong in a history, and how much was looked at."""

    violations: list[Violation] = field(default_factory=list)
    #: All violations by invariant, those that are not listed included.
    total: Counter[str] = field(default_factory=Counter)
    #: What was looked at: a check of nothing proves nothing.
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def ids(self) -> set[str]:
        """The invariants that were broken."""
        return set(self.total)

    def add(self, invariant: str, sentence: str, *rows: Line | None) -> None:
        """Note a violation with the lines that prove it."""
        self.total[invariant] += 1
        if self.total[invariant] <= MOST_LISTED:
            self.violations.append(Violation(invariant, sentence, tuple(row for row in rows if row)[:MOST_ROWS]))

    def __str__(self) -> str:
        looked = ", ".join(f"{number} {what}" for what, number in sorted(self.counts.items()))
        if not self.total:
            return f"Nothing is wrong ({looked})."
        hidden = sum(max(0, number - MOST_LISTED) for number in self.total.values())
        more = [f"… and {hidden} more"] if hidden else []
        summary = ", ".join(f"{number} x {name}" for name, number in sorted(self.total.items()))
        return "\n".join([*map(str, self.violations), *more, f"{summary} ({looked})"])
