"""Collects every problem of an input, within bounds: a hostile document must not cost more than an honest one."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from dag.errors import Invalid, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: More problems than these are counted, not told.
MOST: Final = 1000
#: How many names are looked up in the list of what was perhaps meant, and how much comparing that may cost in all:
#: the sum of the products of lengths, some 0.1 s.
_MOST_LOOKUPS: Final = 20
_MOST_COMPARING: Final = 1_500_000


class Findings:
    """What was found wrong so far, in the order of finding."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._told: set[tuple[str, str, str]] = set()
        self._untold = 0
        self._lookups = 0
        self._comparing = 0

    def __bool__(self) -> bool:
        return bool(self.problems)

    def add(self, pointer: str, code: str, message: str, hint: str = "") -> None:
        """Keep one problem, the same one only once; what is said can be printed and encoded, whatever it quotes."""
        pointer = pointer if pointer.isascii() else pointer.encode(errors="replace").decode()
        message, hint = _printable(message), _printable(hint)
        if (pointer, code, message) in self._told:
            return
        if len(self.problems) >= MOST:
            self._untold += 1
            return
        self._told.add((pointer, code, message))
        self.problems.append(Problem(pointer=pointer, code=code, message=message, hint=hint))

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.add(problem.pointer, problem.code, problem.message, problem.hint)

    def meant(self, word: str, known: Collection[str], otherwise: str = "") -> str:
        """Return a hint that names what of *known* was perhaps meant by *word*."""
        self._lookups += 1
        if self._lookups > _MOST_LOOKUPS:
            return otherwise
        folded = {}
        for name in known:
            if (
                abs(len(name) - len(word)) <= len(word) // 3 + 1
                and self._comparing + len(name) * len(word) <= _MOST_COMPARING
            ):
                self._comparing += len(name) * len(word)
                folded[_folded(name)] = name
        close = difflib.get_close_matches(_folded(word), folded, n=1, cutoff=0.6)
        return f"Did you mean {folded[close[0]]!r}?" if close else otherwise

    def raise_if_any(self, kind: type[Invalid]) -> None:
        """Raise *kind* with all that was found."""
        if not self.problems:
            return
        if self._untold:
            text = f"There are {self._untold} more problems."
            self.problems.append(Problem(pointer="", code="too_many_problems", message=text, hint="Mend these first."))
        raise kind(self.problems)


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _folded(name: str) -> str:
    return name.casefold().replace("-", "_")
