"""The command line that all benchmarks share, and the servers they ask for."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.figures import Form, Report
    from bench.postgres import Postgres

DATABASES = {"sqlite": ("sqlite",), "postgres": ("postgres",), "both": ("sqlite", "postgres")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for."""

    databases: Sequence[str]
    repeat: int
    #: Where profiles go; None: nothing is profiled, which would cost what it measures.
    profile: Path | None
    idle_seconds: float
    cycles: int
    #: How long each repeat may wait for others to be quiet.
    patience: float
    #: Which benchmarks, where one command has several; none named: all.
    only: Sequence[str] = ()

    @contextmanager
    def servers(self) -> Iterator[Servers]:
        """Yield a folder and, once somebody asks, a Postgres; both are gone afterwards."""
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="runyard-bench-"))
            yield Servers(Path(folder), stack)


class Servers:
    """The places benchmarks put things in."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self._postgres: Postgres | None = None
        self._homes = 0

    @property
    def postgres(self) -> Postgres:
        if self._postgres is None:
            from bench.postgres import postgres  # noqa: PLC0415  # only where it is asked for

            self._postgres = self._stack.enter_context(postgres(self.folder))
        return self._postgres

    def database(self, kind: str) -> dict[str, str]:
        """Return the environment of a service on a new database of this *kind*."""
        return {} if kind == "sqlite" else {"RUNYARD_DATABASE_URL": self.postgres.create()}

    def home(self) -> Path:
        """Return a new home."""
        self._homes += 1
        return self.folder / f"home{self._homes}"


def options(
    prog: str | None = None, *, databases: str | None, repeat: int = 3, names: Sequence[str] = ()
) -> tuple[Options, Form]:
    """Read the command line; the second value is how to print."""
    parser = argparse.ArgumentParser(prog=prog)
    if names:
        parser.add_argument("only", nargs="*", metavar="BENCHMARK", help=f"all, or some of: {' '.join(names)}")
    if databases is not None:
        parser.add_argument("--database", choices=DATABASES, default=databases)
    parser.add_argument("--repeat", type=int, default=repeat, metavar="N")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_const", const="json", dest="form", help="print JSON instead of tables")
    forms.add_argument("--markdown", action="store_const", const="markdown", dest="form", help="print Markdown")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="let py-spy (on the PATH) look on, and put what it saw here"
    )
    parser.add_argument("--idle-seconds", type=float, default=30.0, help="how long an idle service is watched")
    parser.add_argument(
        "--cycles", type=int, default=28, help="rounds of a crash loop; not every one kills the service"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=0,
        metavar="S",
        help="wait up to S seconds before a repeat for a quiet machine",
    )
    given = parser.parse_args()
    for unknown in set(getattr(given, "only", ())) - set(names):
        parser.error(f"there is no benchmark {unknown!r}; there are: {' '.join(names)}")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what was started is ended on the way out
    asked = Options(
        databases=DATABASES[given.database] if databases is not None else (),
        repeat=given.repeat,
        profile=given.profile,
        idle_seconds=given.idle_seconds,
        cycles=given.cycles,
        patience=given.patience,
        only=getattr(given, "only", ()),
    )
    return asked, given.form or "tables"


def run_benchmark(
    measure: Callable[[Options], Sequence[Report]], *, databases: str | None = "sqlite", repeat: int = 3
) -> None:
    """Be the command of one benchmark; *databases* is which one it uses when nothing is said, None for none."""
    asked, form = options(databases=databases, repeat=repeat)
    show(list(measure(asked)), form)
    sys.stdout.flush()
