"""Full files of the log go whole, oldest first, after they were archived and noted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from loragate_server.config.retention import RetentionSection
from loragate_server.policy.decision import Decision
from loragate_server.record.chain import verify_log
from loragate_server.record.reconcile import reconcile
from loragate_server.record.recorder import Recorder
from loragate_server.record.retention.archive import Archive, ArchiveError
from loragate_server.record.retention.holds import Hold
from loragate_server.record.retention.log_files import old_files, prune_files
from loragate_server.record.retention.pruner import Pruner, Tally
from loragate_server.record.rotation import files_of, rotated_files
from loragate_server.record.verdict import Caller

LATER = datetime.now(UTC) + timedelta(days=100)


@pytest.fixture
def recorder(
    open_recorder: Callable[..., Recorder],
    database_url: str,
    log_path: Path,
    decision: Callable[..., Decision],
) -> Recorder:
    """With nine decisions in a log of several files."""
    recorder = open_recorder(database_url, log_path, log_file_bytes=5000)
    for number in range(9):
        recorder.record(decision(sha256s=(f"{number:064x}",)), Caller(), stage_times_s={})
    assert len(rotated_files(log_path)) >= 3
    return recorder


def old(log: Path, before: datetime = LATER, *holds: Hold) -> tuple[list[Path], Tally]:
    tally = Tally("log files", before)
    return [one.path for one in old_files(log, before, holds, tally)], tally


def test_files_go_to_the_archive_and_what_is_left_is_one_chain(
    recorder: Recorder, log_path: Path, tmp_path: Path
) -> None:
    archive = Archive(str(tmp_path / "archive"))
    full = rotated_files(log_path)
    bytes_before = [file.read_bytes() for file in full]
    before = verify_log(*files_of(log_path))
    tally = Tally("log files", LATER)
    prune_files(old_files(log_path, LATER, (), tally), recorder.log, archive)
    assert tally.count == len(full)
    assert tally.size_bytes == sum(map(len, bytes_before))
    assert rotated_files(log_path) == ()
    kept = sorted(Path(archive.url).iterdir())
    assert [file.read_bytes() for file in kept] == bytes_before
    assert verify_log(log_path).intact
    whole = verify_log(*kept, log_path)
    assert whole.intact
    assert whole.chains == 1
    assert whole.decision_ids == before.decision_ids


def test_rows_of_pruned_files_are_no_difference(
    recorder: Recorder, log_path: Path, tmp_path: Path
) -> None:
    archive = Archive(str(tmp_path / "archive"))
    prune_files(old_files(log_path, LATER, (), Tally("log files", LATER)), recorder.log, archive)
    found = reconcile(recorder.database, files_of(log_path))
    assert found.differences == ()
    assert found.pruned > 0
    assert found.pruned + found.equal == 9
    Pruner(recorder.database, RetentionSection(decisions="1d"), archive, LATER).prune()
    assert reconcile(recorder.database, files_of(log_path)).differences == ()


def test_a_row_that_is_younger_than_the_pruned_files_needs_its_line(
    recorder: Recorder, log_path: Path, decision: Callable[..., Decision]
) -> None:
    prune_files(
        old_files(log_path, LATER, (), Tally("log files", LATER)), recorder.log, Archive("")
    )
    made = recorder.record(decision(), Caller(), stage_times_s={})
    lines = log_path.read_bytes().splitlines(keepends=True)
    log_path.write_bytes(b"".join(lines[:-1]))
    [missing] = reconcile(recorder.database, files_of(log_path)).differences
    assert (missing.id, missing.where) == (made.decision_id, "database")


def test_a_held_file_keeps_itself_and_all_that_follow(recorder: Recorder, log_path: Path) -> None:
    full = rotated_files(log_path)
    second = verify_log(full[1]).decision_ids[0]
    [adapter] = recorder.get(second).decision.evidence.adapters
    found, tally = old(log_path, LATER, Hold("case", "why", sha256=adapter.sha256))
    assert found == [full[0]]
    assert tally.held == Counter({"case": 1})


def test_files_with_a_young_or_an_unreadable_line_stay(recorder: Recorder, log_path: Path) -> None:
    assert old(log_path, datetime.now(UTC) - timedelta(days=1))[0] == []
    first = rotated_files(log_path)[0]
    first.write_bytes(first.read_bytes().replace(b'"ALLOW"', b'"BLOCK"', 1))
    found, tally = old(log_path)
    assert (found, tally.unreadable) == ([], 1)


def test_a_file_that_could_not_be_archived_stays(
    recorder: Recorder, log_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    files = old_files(log_path, LATER, (), Tally("log files", LATER))
    with pytest.raises(ArchiveError):
        prune_files(files, recorder.log, Archive(str(tmp_path / "file")))
    assert [file.path for file in files] == list(rotated_files(log_path))


def test_a_file_stays_until_every_audit_device_has_its_lines(
    recorder: Recorder, log_path: Path
) -> None:
    full = rotated_files(log_path)
    last_of_first = verify_log(full[0]).last.seq
    tally = Tally("log files", LATER)
    assert old_files(log_path, LATER, (), tally, taken=last_of_first - 1) == []
    assert tally.kept == {"an audit device does not have them yet": 1}
    found = old_files(log_path, LATER, (), Tally("log files", LATER), taken=last_of_first)
    assert [one.path for one in found] == [full[0]]
