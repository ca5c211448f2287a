"""Databases that are gone, locked, full or read-only: an error each, and work again afterwards."""

import os
import pwd
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record import migrate
from loragate_server.record.chain import verify_log
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Caller
from testkit.postgres import PostgresServer


def refusal(act, reason: ErrorReason = ErrorReason.DATABASE_UNAVAILABLE) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as caught:
        act()
    assert caught.value.reason is reason, caught.value
    return caught.value


@pytest.fixture(autouse=True)
def _own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes of making tables is what is looked at here."""
    monkeypatch.setattr("loragate_server.record.recorder.upgrade", migrate.upgrade)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audits.db"


@pytest.fixture
def recorder(file: Path, log_path: Path, open_recorder) -> Recorder:
    return open_recorder(f"sqlite:///{file}", log_path, database_timeout_s=0.2)


@pytest.fixture
def record(recorder: Recorder, decision):
    return lambda: recorder.record(decision(), Caller(), stage_times_s={})


@pytest.mark.needs("initdb")
def test_a_stopped_server_is_an_error_until_it_runs_again(
    own_postgres, open_recorder, log_path, decision
) -> None:
    recorder = open_recorder(own_postgres.new_database(), log_path, database_timeout_s=2)

    def record() -> str:
        return recorder.record(decision(), Caller(), stage_times_s={}).decision_id

    first = record()
    own_postgres.stop()
    for act in (record, recorder.check, recorder.list, lambda: recorder.get(first)):
        error = refusal(act)
        assert error.retry_after_s is not None
    assert verify_log(log_path).decision_ids == (first,)
    own_postgres.start()
    recorder.check()
    second = record()
    assert [v.decision_id for v in recorder.list()[0]] == [second, first]


@pytest.mark.needs("initdb")
def test_a_server_that_is_down_at_the_start_is_an_error_without_the_password(
    log_path: Path, tmp_path: Path
) -> None:
    url = f"postgresql://someone:geheim@/audits?host={tmp_path}"
    error = refusal(lambda: Recorder(url, log_path, database_timeout_s=1))
    assert "geheim" not in str(error)


@pytest.mark.parametrize(
    "url", ["", "nonsense:geheim", "mysql://a:geheim@b/c", "sqlite://", "sqlite:///:memory:"]
)
def test_a_url_that_cannot_be_a_lasting_database_is_refused(url: str, log_path: Path) -> None:
    error = refusal(lambda: Recorder(url, log_path))
    assert "geheim" not in str(error)
    assert "sqlite:////" in error.remedy


def test_a_removed_database_is_an_error_and_no_empty_one_takes_its_place(
    recorder, record, file: Path
) -> None:
    record()
    away = file.with_suffix(".away")
    file.rename(away)
    refusal(record)
    refusal(recorder.check)
    refusal(recorder.list)
    assert not file.exists()
    away.rename(file)
    recorder.check()
    record()
    assert len(recorder.list()[0]) == 2


def test_a_database_replaced_by_an_empty_one_is_an_error(recorder, record, file: Path) -> None:
    record()
    file.unlink()
    sqlite3.connect(file).close()
    file.touch()
    refusal(record)
    refusal(recorder.check)


def test_a_database_that_vanishes_while_it_is_written_gives_no_verdict(
    recorder, file: Path, decision, log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = recorder.log.append_decision

    def append_and_remove(*arguments, **options):
        file.unlink()
        return append(*arguments, **options)

    monkeypatch.setattr(recorder.log, "append_decision", append_and_remove)
    refusal(lambda: recorder.record(decision(), Caller(), stage_times_s={}))
    assert b"not_answered" in log_path.read_bytes()


def test_a_locked_database_is_an_error_until_it_is_free(recorder, record, file: Path) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert "locked" in refusal(record).message
    other.execute("ROLLBACK")
    other.close()
    record()


def test_a_file_that_is_no_database_is_an_error(file: Path, log_path: Path) -> None:
    file.write_bytes(b"this is not a database, however long one looks at it" * 100)
    refusal(lambda: Recorder(f"sqlite:///{file}", log_path))


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path, log_path: Path) -> None:
    refusal(lambda: Recorder(f"sqlite:///{tmp_path}/no/audits.db", log_path))


READ_ONLY = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from conftest import _decision
from loragate_server.errors import NoDecisionError
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Caller
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)  # Permissions do not bind root.
recorder = Recorder(sys.argv[1], Path(sys.argv[2]), migrate=False)
try:
    recorder.record(_decision(), Caller(), stage_times_s={})
except NoDecisionError as error:
    print(error.reason, error.message)
"""


def test_a_read_only_database_is_an_error(tmp_path: Path, file: Path, recorder, record) -> None:
    record()
    recorder.close()
    # A folder that another user may enter, with a log that it may write.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "audits.db").write_bytes(file.read_bytes())
        (folder / "audits.db").chmod(0o444)
        (folder / "logs").mkdir()
        (folder / "logs").chmod(0o777)
        here = os.fspath(Path(__file__).parent)
        url, log = f"sqlite:///{folder}/audits.db", folder / "logs" / "log"
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, url, log, here],
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout.startswith("DATABASE_UNAVAILABLE"), done
        assert log.read_bytes() == b""


def test_a_database_without_room_is_a_full_disk(
    small_disk: Path, fill_disk, log_path: Path, open_recorder, decision
) -> None:
    recorder = open_recorder(f"sqlite:///{small_disk}/audits.db", log_path)
    recorder.record(decision(), Caller(), stage_times_s={})
    ballast = fill_disk(small_disk)
    refusal(recorder.check, ErrorReason.DISK_FULL)

    def record_much() -> None:
        recorder.record(decision(text="x" * 100_000), Caller(), stage_times_s={})

    refusal(record_much, ErrorReason.DISK_FULL)
    ballast.unlink()
    recorder.check()
    recorder.record(decision(), Caller(), stage_times_s={})
    assert len(recorder.list()[0]) == 2


@pytest.fixture
def tablespace(own_postgres: PostgresServer) -> Iterator[Path]:
    """A file system of 24 MiB, in which a database of the server may lie."""
    with tempfile.TemporaryDirectory(prefix="pg-small-", dir="/tmp") as name:
        mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", name]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            pytest.skip("mounting a small file system needs root")
        try:
            (folder := Path(name) / "space").mkdir(mode=0o700)
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
            yield folder
        finally:
            own_postgres.stop()
            subprocess.run(["umount", "-l", name], check=True)


@pytest.mark.needs("initdb")
def test_a_server_without_room_is_not_ready_until_there_is_some(
    own_postgres: PostgresServer, tablespace: Path, fill_disk, log_path: Path, open_recorder,
    decision,
) -> None:  # fmt: skip
    recorder = open_recorder(own_postgres.new_database(tablespace=tablespace), log_path)
    recorder.record(decision(), Caller(), stage_times_s={})
    recorder.check()
    ballast = fill_disk(tablespace.parent)

    def record_much() -> None:
        long = "".join(chr(33 + number * number % 90) for number in range(200_000))
        recorder.record(decision(text=long), Caller(), stage_times_s={})

    refusal(record_much, ErrorReason.DISK_FULL)
    for _ in range(3):
        refusal(recorder.check, ErrorReason.DISK_FULL)
    ballast.unlink()
    recorder.check()
    recorder.record(decision(), Caller(), stage_times_s={})
    recorder.check()
    assert len(recorder.list()[0]) == 2


def test_a_database_that_somebody_locks_is_not_ready(recorder, record, file: Path) -> None:
    record()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert "locked" in refusal(recorder.check).message
    other.execute("ROLLBACK")
    other.close()
    recorder.check()
