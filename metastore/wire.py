"""The wire to Postgres: how every connection is opened, what bounds its waiting, and what an error on it means."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg  # type: ignore[import-untyped]  # it ships no types
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

if TYPE_CHECKING:
    from metastore.settings import DatabaseSettings


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds in seconds: without each of them a lost packet or a forgotten lock hangs a service for ever."""

    connect: float = 5.0
    #: The client's patience with one statement; longer than the server's, which leaves a cleaner end.
    command: float = 12.0
    statement: float = 10.0
    lock: float = 3.0
    idle_in_transaction: float = 10.0
    #: For one write or read with all its repetitions.
    patience: float = 20.0


#: serialization_failure, deadlock_detected, lock_not_available, too_many_connections, idle_in_transaction_timeout.
_AGAIN: Final = frozenset({"40001", "40P01", "55P03", "53300", "25P03"})
#: read_only_sql_transaction: where it was meant to write, this is a server that was primary once.
READ_ONLY: Final = "25006"
#: query_canceled by the statement timeout, disk_full, out_of_memory: not now, and not at once again.
_NOT_NOW: Final = frozenset({"57014", "53100", "53200", "53400"})


async def connect(settings: DatabaseSettings, timeouts: Timeouts, *, name: str = "runyard") -> Any:
    """Open a connection in which nothing waits for ever."""
    conn = await asyncpg.connect(
        settings.asyncpg,
        timeout=timeouts.connect,
        command_timeout=timeouts.command,
        server_settings={
            "application_name": name,
            "statement_timeout": _ms(timeouts.statement),
            "lock_timeout": _ms(timeouts.lock),
            "idle_in_transaction_session_timeout": _ms(timeouts.idle_in_transaction),
            "jit": "off",
            "tcp_keepalives_idle": "15",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
        },
    )
    _keep_alive(conn, timeouts)
    return conn


def _ms(seconds: float) -> str:
    return str(int(seconds * 1000))


def _keep_alive(conn: Any, timeouts: Timeouts) -> None:
    """Let the kernel notice a peer that is gone; asyncpg has no option for it."""
    transport = getattr(conn, "_transport", None)
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 15),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", int(timeouts.command * 1000)),
    ):
        if hasattr(socket, option):  # not every system has each
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def again(error: BaseException) -> bool:
    """Whether the same transaction may well succeed when it is run again at once."""
    if isinstance(error, DBAPIError):
        state = sqlstate(error)
        stale = isinstance(error.orig, AsyncAdapt_asyncpg_dbapi.InvalidCachedStatementError)  # a migration came by
        return error.connection_invalidated or stale or state in _AGAIN or state.startswith(("08", "57P"))
    if isinstance(error, asyncpg.PostgresError):  # while connecting, where SQLAlchemy does not translate
        state = str(error.sqlstate)
        return state in _AGAIN or state.startswith(("08", "57P"))
    return isinstance(error, OSError | TimeoutError | PoolTimeout | asyncpg.InterfaceError)


def ambiguous(error: BaseException) -> bool:
    """Whether *error*, raised by a COMMIT, leaves open if it took effect: nobody answered."""
    if isinstance(error, DBAPIError):
        state = sqlstate(error)
        return error.connection_invalidated or state.startswith(("08", "57"))
    return isinstance(error, OSError | TimeoutError | asyncpg.InterfaceError)


def not_now(error: BaseException) -> bool:
    """Whether the database is up but cannot do this at present."""
    return isinstance(error, DBAPIError) and sqlstate(error) in _NOT_NOW


def said(error: BaseException) -> str:
    """Return what went wrong in the database's words, without our statement and its values."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause) or type(cause).__name__


def refused(error: BaseException) -> bool:
    """Whether the database would not let us in: wrong name, password or database."""
    return isinstance(error, asyncpg.PostgresError) and str(error.sqlstate)[:2] in {"28", "3D", "42"}


def sqlstate(error: DBAPIError) -> str:
    """Return Postgres' five characters for what went wrong; empty where it said nothing."""
    return str(getattr(error.orig, "sqlstate", None) or "")
