"""A log that the server rotates, and whose old files go, is still held to its checkpoints."""

from __future__ import annotations

from pathlib import Path

from loragate_server.record.chain import verify_log
from loragate_server.record.log import DecisionLog
from loragate_server.record.rotation import files_of, full_name, rotated_files
from loragate_server.record.tree.checkpoint import trusted_checkpoint
from loragate_server.record.tree.note import parse_note
from loragate_server.record.tree.sealed import Seen, verify_tree
from loragate_server.record.tree.signer import read_note_key
from loragate_server.record.tree.tree import LogTree
from testkit.checkpoints import make_keeper, make_key

FULL_BYTES = 2000


def fill(log: DecisionLog, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        log.append_decision({"decision_id": f"d{number}", "x": "y" * 300}, binding=True)


def seen(folder: Path) -> Seen:
    note = parse_note((folder / "decisions.jsonl.tree" / "checkpoint").read_text())
    key = read_note_key(make_key(folder, "log-key")[1])
    return Seen(trusted_checkpoint(note, [key]), "the checkpoint")


def open_full(folder: Path):
    keeper = make_keeper(folder)
    return keeper, keeper.open_log(folder / "decisions.jsonl", FULL_BYTES)


def test_a_tree_goes_on_over_files_restarts_and_an_end_between_two_files(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    keeper, log = open_full(tmp_path)
    fill(log, 20)
    assert keeper.make() == {}
    fill(log, 7, 20)  # in no checkpoint yet
    log.close()
    path.rename(full_name(path))  # and killed before the next file was begun
    keeper, log = open_full(tmp_path)
    fill(log, 20, 27)
    assert keeper.make() == {}
    log.close()

    files = files_of(path)
    assert len(files) > 5
    checked = verify_log(*files)
    assert checked.intact
    assert checked.decision_ids == tuple(f"d{number}" for number in range(47))
    assert seen(tmp_path).checkpoint.size == checked.lines
    assert verify_tree(files, [seen(tmp_path)]) == ()


def test_what_is_left_when_old_files_have_gone_is_held_to_the_tree(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    keeper, log = open_full(tmp_path)
    fill(log, 40)
    assert keeper.make() == {}
    log.close()
    for file in rotated_files(path)[:3]:
        file.unlink()
    keeper, log = open_full(tmp_path)  # the server starts without them
    fill(log, 5, 40)
    assert keeper.make() == {}
    log.close()

    tree = (keeper.tree.folder, LogTree(keeper.tree.folder, "loragate").saved)
    files = files_of(path)
    assert verify_tree(files, [seen(tmp_path)], tree=tree) == ()
    changed = files[1].read_bytes().replace(b"yyy", b"yyz", 1)
    files[1].write_bytes(changed)
    [problem] = verify_tree(files, [seen(tmp_path)], tree=tree)
    assert problem.file == str(files[1])
