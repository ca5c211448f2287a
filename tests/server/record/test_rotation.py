"""A log in several files: one chain, whatever happens between two of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from loragate_server.errors import NoDecisionError
from loragate_server.record.chain import GENESIS, verify_log
from loragate_server.record.log import DecisionLog
from loragate_server.record.rotation import files_of, rotated_files


def write(path: Path, count: int, start: int = 0) -> None:
    log = DecisionLog(path, file_bytes=2000)
    for number in range(start, start + count):
        log.append_decision({"decision_id": f"d{number}", "x": "y" * 300}, binding=True)
    log.close()


def test_full_files_get_names_in_order_and_one_chain_goes_through_all(log_path: Path) -> None:
    write(log_path, 20)
    write(log_path, 20, 20)
    files = files_of(log_path)
    assert len(files) > 5
    assert rotated_files(log_path)[0].name == "decisions.jsonl.000000000001"
    check = verify_log(*files)
    assert check.intact
    assert check.chains == 1
    assert check.first_prev == GENESIS
    assert check.decision_ids == tuple(f"d{number}" for number in range(40))
    for file in files[:-1]:
        assert file.stat().st_mode & 0o777 == 0o600


def test_each_file_begins_with_the_digest_and_the_name_of_the_former(log_path: Path) -> None:
    write(log_path, 20)
    files = files_of(log_path)
    for former, later in itertools.pairwise(files):
        first = json.loads(later.read_bytes().splitlines()[0])
        assert first["note"] == {"code": "continues", "file": former.name}
        assert first["prev"] == verify_log(former).last.sha256


def test_a_missing_file_in_the_middle_is_found(log_path: Path) -> None:
    write(log_path, 20)
    files = files_of(log_path)
    assert not verify_log(*files[:1], *files[2:]).intact
    assert verify_log(*files[1:]).intact


@pytest.mark.parametrize("left", ["nothing", "an empty file", "a torn line"])
def test_the_chain_goes_on_after_a_crash_between_two_files(log_path: Path, left: str) -> None:
    write(log_path, 4)
    log_path.rename(log_path.with_name("decisions.jsonl.000000000001"))
    if left != "nothing":
        log_path.write_bytes(b"" if left == "an empty file" else b'{"seq":9,"pr')
    before = verify_log(*rotated_files(log_path))
    write(log_path, 2, 4)
    check = verify_log(*files_of(log_path))
    assert check.intact
    assert check.chains == 1
    assert before.decision_ids == ("d0", "d1", "d2", "d3")
    assert check.decision_ids[:6] == tuple(f"d{number}" for number in range(6))


def test_nothing_is_written_over_a_file_of_the_same_name(log_path: Path) -> None:
    write(log_path, 4)
    there = log_path.with_name("decisions.jsonl.000000000001")
    there.write_text("of somebody else")
    with pytest.raises(NoDecisionError, match="move it aside"):
        write(log_path, 8, 4)
    assert there.read_text() == "of somebody else"
