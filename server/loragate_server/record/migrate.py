"""Brings a database to the present tables."""

from __future__ import annotations

import sqlite3
import time

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

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
    url = parse_url(database_url)
    path = sqlite_path(url)
    engine = make_engine(url, timeout_s)
    try:
        if path is not None:
            create_sqlite_file(path)
            _use_wal(engine, timeout_s)
        with engine.connect().execution_options(**WRITES) as connection, connection.begin():
            _wait_for_turn(connection)
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (SQLAlchemyError, sqlite3.Error, CommandError, OSError) as error:
        raise database_failure(error) from error
    finally:
        engine.dispose()


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
