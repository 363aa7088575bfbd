"""Migrations from the command line, from a checkout and from an installed wheel alike."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from metastore import migrate
from runyard import home, show
from runyard.exits import in_words
from runyard.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer()
db = typer.Typer(no_args_is_help=True, help="Bring the database to this release, or look where it is.")
app.add_typer(db, name="db")


@db.command()
def upgrade() -> None:
    """Bring the database to this release."""
    with _database(alone=True) as url:
        done = migrate.upgrade(url)
        show.say(f"{'brought to' if done else 'already at'} revision {migrate.HEAD}")


@db.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="Where to go back to; `base` removes every table.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take the database back to an older revision; what only the newer one has is lost."""
    with _database(alone=True) as url:
        if not yes:
            typer.confirm(f"Take the database back to {revision}? What only the newer schema has is lost.", abort=True)
        migrate.downgrade(url, revision)
        show.say(f"at revision {migrate.current(url) or 'none'}")


@db.command()
def current() -> None:
    """Print the revision of the database; `none` when it was never migrated."""
    with _database() as url:
        show.say(migrate.current(url) or "none")


@db.command()
def check() -> None:
    """Exit with 0 if the database is at the revision of this release, with 13 if not."""
    with _database() as url:
        migrate.check(url)
        show.say(f"at revision {migrate.HEAD}, as this release needs it")


@contextmanager
def _database(*, alone: bool = False) -> Iterator[str]:
    """Give the database's URL; *alone* keeps a service off the same SQLite file in the meantime."""
    settings = Settings.read()
    with ExitStack() as stack:
        if settings.on_sqlite and (alone or settings.home.exists()):
            home.prepare(settings.home)
        if settings.on_sqlite and alone:
            stack.enter_context(home.locked(settings.home))
        stack.enter_context(in_words())
        yield settings.url
