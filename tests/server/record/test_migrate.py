"""Migrations: they make the tables that the code expects, also when replicas start together."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.connect import make_engine, parse_url
from loragate_server.record.migrate import alembic_config, known_revisions, upgrade
from loragate_server.record.tables import metadata
from testkit.postgres import PostgresServer


def test_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    upgrade(database_url)
    engine = create_engine(parse_url(database_url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert set(inspect(connection).get_table_names()) == {
            "alembic_version",
            "audits",
            "audited_adapters",
            "change_pictures",
            "concept_changes",
            "event_deliveries",
            "events",
            "file_weights",
            "findings",
            "holds",
            "known_uses",
            "pruned",
            "reviews",
            "sketches",
        }
    engine.dispose()


def test_upgrading_twice_changes_nothing(database_url: str) -> None:
    upgrade(database_url)
    upgrade(database_url)


def test_the_migrations_form_one_line() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert len(scripts.get_heads()) == 1
    numbers = [one.revision for one in scripts.walk_revisions()]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-1] == "0001"


def test_replicas_that_start_together_migrate_once(database_url: str) -> None:
    code = (
        "import sys; from loragate_server.record.migrate import upgrade;"
        "sys.stdin.readline(); upgrade(sys.argv[1], 30)"
    )
    replicas = [
        subprocess.Popen(
            [sys.executable, "-c", code, database_url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for replica in replicas:
        assert replica.stdin is not None
        replica.stdin.write(b"\n")
        replica.stdin.flush()
    errors = [replica.communicate()[1] for replica in replicas]
    assert [replica.returncode for replica in replicas] == [0] * 4, errors


def test_tables_of_a_newer_version_are_refused(database_url: str) -> None:
    upgrade(database_url)
    engine = create_engine(parse_url(database_url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(NoDecisionError, match="9999") as caught:
        upgrade(database_url)
    assert caught.value.reason is ErrorReason.DATABASE_UNAVAILABLE
    assert f"db downgrade {known_revisions()[-1]}" in caught.value.remedy


def test_sqlite_keeps_what_was_committed_and_is_private(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a b%20?c.db".replace("?", "%3F")
    upgrade(url)
    assert len(list(tmp_path.glob("a b*.db"))) == 1
    path = next(tmp_path.glob("a b*.db"))
    assert path.stat().st_mode & 0o777 == 0o600
    engine = make_engine(parse_url(url), 1)
    with engine.connect() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    engine.dispose()
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 1000}
    assert pragma == expected


@pytest.mark.needs("initdb")
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_text_is_refused(
    postgres: PostgresServer, encoding: str
) -> None:
    url = postgres.new_database(encoding)
    for each in (url, f"{url}&client_encoding=utf8"):
        with pytest.raises(NoDecisionError, match=f"the encoding {encoding}") as caught:
            upgrade(each)
        assert caught.value.reason is ErrorReason.DATABASE_UNAVAILABLE
        assert "ENCODING 'UTF8'" in caught.value.remedy


@pytest.mark.needs("initdb")
def test_text_is_text_whatever_encoding_the_environment_asks_for(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "SQL_ASCII")
    for url in (postgres.new_database(), f"{postgres.new_database()}&client_encoding=latin1"):
        upgrade(url)
        engine = make_engine(parse_url(url), 3)
        with engine.begin() as connection:
            assert connection.exec_driver_sql("SELECT '\u732b'").scalar() == "\u732b"
        engine.dispose()


@pytest.mark.needs("initdb")
def test_postgresql_commits_wait_for_the_disk_whatever_the_server_says(postgres) -> None:
    url = parse_url(postgres.new_database())
    engine = make_engine(url, 3)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {url.database} SET synchronous_commit = off")
    engine.dispose()
    with engine.begin() as connection:
        settings = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("synchronous_commit", "statement_timeout", "lock_timeout")
        }
    engine.dispose()
    expected = {"synchronous_commit": "on", "statement_timeout": "3s", "lock_timeout": "3s"}
    assert settings == expected
