"""Brings a database to the present tables, and back to those of an older version."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.connect import (
    WRITES,
    create_sqlite_file,
    make_engine,
    parse_url,
    sqlite_path,
)
from loragate_server.record.failures import database_failure

DEFAULT_TIMEOUT_S = 5.0
_LOCK_KEY = 0x6C6F726167617465  # "loragate"


def alembic_config() -> Config:
    """Alembic's settings for the migrations that ship with the package."""
    config = Config()
    config.set_main_option("script_location", "loragate_server.record:migrations")
    config.set_main_option("path_separator", "os")
    return config


def upgrade(database_url: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
    """Creates or migrates the tables. Replicas may do it at the same time; one works, others wait.

    Raises:
        NoDecisionError: DATABASE_UNAVAILABLE (also when the tables are of a newer version) or
            DISK_FULL.
    """
    path = sqlite_path(parse_url(database_url))
    with _database_failures():
        if path is not None:
            create_sqlite_file(path)
    with _changing(database_url, timeout_s) as connection:
        _require_known(_revision(connection))
        command.upgrade(_config_of(connection), "head")


def downgrade(database_url: str, revision: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
    """Takes the tables back to those of an older version, which must not run meanwhile.

    Raises:
        NoDecisionError: DATABASE_UNAVAILABLE (also for a revision that is not known, or is newer)
            or DISK_FULL.
    """
    with _changing(database_url, timeout_s) as connection:
        now = _revision(connection)
        _require_known(now)
        known = known_revisions()
        if now is None or revision not in known or known.index(revision) > known.index(now):
            raise NoDecisionError(
                ErrorReason.DATABASE_UNAVAILABLE,
                f"The tables are of revision {now}, which cannot be taken back to {revision!r}.",
                remedy=f"Name one of {', '.join(known)} that is older.",
            )
        command.downgrade(_config_of(connection), revision)


def revision_of(database_url: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> str | None:
    """The revision of the tables; None where there are none.

    Raises:
        NoDecisionError: DATABASE_UNAVAILABLE.
    """
    engine = make_engine(parse_url(database_url), timeout_s)
    try:
        with _database_failures(), engine.connect() as connection:
            return _revision(connection)
    finally:
        engine.dispose()


def known_revisions() -> tuple[str, ...]:
    """The revisions that this version knows, oldest first; the last one is its own."""
    scripts = ScriptDirectory.from_config(alembic_config())
    return tuple(one.revision for one in scripts.walk_revisions())[::-1]


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _require_known(revision: str | None) -> None:
    """Raises where a newer version has made the tables: it alone knows the way back."""
    own = known_revisions()[-1]
    if revision is None or revision in known_revisions():
        return
    raise NoDecisionError(
        ErrorReason.DATABASE_UNAVAILABLE,
        f"The tables of the database are of revision {revision}, made by a newer version of "
        f"loragate-server; this one knows them up to {own}.",
        remedy=f"Start the newer version again, or run `loragate-server db downgrade {own}` with "
        "it while no server runs, and then start this one (docs/upgrading.md).",
    )


def _config_of(connection: Connection) -> Config:
    config = alembic_config()
    config.attributes["connection"] = connection
    return config


@contextmanager
def _changing(database_url: str, timeout_s: float) -> Iterator[Connection]:
    """A transaction in which nobody else changes tables."""
    url = parse_url(database_url)
    engine = make_engine(url, timeout_s)
    try:
        with _database_failures():
            if sqlite_path(url) is not None:
                _use_wal(engine, timeout_s)
            with engine.connect().execution_options(**WRITES) as connection, connection.begin():
                _wait_for_turn(connection)
                yield connection
    finally:
        engine.dispose()


@contextmanager
def _database_failures() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, CommandError, OSError) as error:
        raise database_failure(error) from error


def _wait_for_turn(connection: Connection) -> None:
    """PostgreSQL: a lock that ends with the transaction. SQLite: BEGIN IMMEDIATE was one."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")


def _use_wal(engine: Engine, timeout_s: float) -> None:
    """Switches to the write-ahead log, so that readers and the writer do not wait for each other.

    The switch ignores SQLite's own waiting when another process does the same, hence the loop.
    """
    give_up = time.monotonic() + timeout_s
    while True:
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)
        finally:
            connection.close()
