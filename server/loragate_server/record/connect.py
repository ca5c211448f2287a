"""Connections to SQLite and PostgreSQL that keep what they are told."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from loragate_server.errors import ErrorReason, NoDecisionError

WRITES = {"loragate_writes": True}
"""Execution options of a connection that will write."""

_POOL_SIZE = 5


def parse_url(database_url: str) -> URL:
    """Checks a database URL and chooses its driver.

    Raises:
        NoDecisionError: DATABASE_UNAVAILABLE, also where the driver is not installed; the message
            does not repeat the URL, which may hold a password.
    """
    try:
        url = make_url(database_url)
    except (ArgumentError, ValueError) as error:
        raise _refused("The database URL cannot be parsed.") from error
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        _require_psycopg()
        return url.set(drivername="postgresql+psycopg")
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise _refused("The SQLite database is not a file, so it would forget its decisions.")
        return url.set(drivername="sqlite")
    raise _refused(f"Databases of the kind {url.drivername!r} are not supported.")


def sqlite_path(url: URL) -> Path | None:
    """The file of an SQLite database; None for PostgreSQL."""
    return Path(str(url.database)) if url.drivername == "sqlite" else None


def make_engine(url: URL, timeout_s: float) -> Engine:
    """An engine whose waits all end after `timeout_s`. Nothing is connected yet."""
    path = sqlite_path(url)
    return _postgresql(url, timeout_s) if path is None else _sqlite(path, timeout_s)


def create_sqlite_file(path: Path) -> None:
    """Creates the file, readable by its owner alone, unless it exists."""
    # An existing file is not opened: closing any descriptor of it would drop SQLite's locks.
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _sqlite(path: Path, timeout_s: float) -> Engine:
    def connect() -> sqlite3.Connection:
        # mode=rw: a database that has vanished is an error, not a reason to begin an empty one.
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=rw",
            uri=True,
            timeout=timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        # FULL: in WAL mode NORMAL may lose the last commits when the power fails, and a decision
        # that was answered has to be found again.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=_POOL_SIZE,
        pool_timeout=timeout_s,
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A write transaction takes its lock at once; upgrading later can fail without waiting.
        writes = connection.get_execution_options().get("loragate_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: URL, timeout_s: float) -> Engine:
    milliseconds = max(1, int(timeout_s * 1000))
    arguments: dict[str, Any] = {
        "connect_timeout": max(2, int(timeout_s)),
        "application_name": "loragate",
        "tcp_user_timeout": milliseconds,
        "prepare_threshold": None,  # Poolers between us and the server may not know statements.
        # Not that of the database or the environment, in which the driver may not give text.
        "client_encoding": "utf8",
    }
    engine = create_engine(
        url,
        connect_args=arguments,
        pool_pre_ping=True,
        pool_size=_POOL_SIZE,
        pool_timeout=timeout_s,
    )

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: object) -> None:
        _require_utf8(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Local to the transaction, so that it holds behind a pooler too. synchronous_commit: a
        # server that is set to answer before its disk does would break the promise of the gate.
        connection.exec_driver_sql(
            "SELECT set_config('synchronous_commit', 'on', true),"
            f" set_config('statement_timeout', '{milliseconds}', true),"
            f" set_config('lock_timeout', '{milliseconds}', true)"
        )

    return engine


def _require_utf8(connection: Any) -> None:
    """Raises where a database cannot hold every name that callers may have.

    In one of SQL_ASCII the same bytes may be any text; one of LATIN1 refuses a decision because of
    who asked.
    """
    encoding = connection.info.parameter_status("server_encoding")  # None behind some poolers
    if encoding not in (None, "UTF8"):
        raise _refused(
            f"The PostgreSQL database {connection.info.dbname!r} has the encoding {encoding}, "
            "which cannot hold every text.",
            "Make one with `CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0`, and move "
            "what is on record with pg_dump.",
        )


def _require_psycopg() -> None:
    """Raises where the driver is missing; else only the first connection would tell, in its way."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise _refused(
            "A PostgreSQL database needs the extra `postgres`, which is not installed.",
            "pip install 'loragate-server[postgres]'",
        ) from error


def _refused(
    message: str, remedy: str = "Use sqlite:////absolute/path.db or postgresql://user@host/name."
) -> NoDecisionError:
    return NoDecisionError(ErrorReason.DATABASE_UNAVAILABLE, message, remedy=remedy)
