"""The tree of a log goes on after every kind of end, and is always the tree of that log."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.log import DecisionLog
from loragate_server.record.tree.checkpoint import trusted_checkpoint
from loragate_server.record.tree.merkle import (
    leaf_hash,
    range_hash,
    require_consistency,
    require_inclusion,
    root_of,
)
from loragate_server.record.tree.note import parse_note
from loragate_server.record.tree.signer import read_note_key
from loragate_server.record.tree.tiles import Tiles, tile_name
from loragate_server.record.tree.tree import TreeError
from testkit.checkpoints import make_keeper, make_key, open_tree_log


def fill(log: DecisionLog, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        log.append_decision({"decision_id": f"d{number}"}, binding=True)


def leaves(folder: Path, *names: str) -> list[bytes]:
    lines = [
        line
        for name in (*names, "decisions.jsonl")
        for line in (folder / name).read_bytes().splitlines()
    ]
    begin = max(n for n, line in enumerate(lines) if b"tree_begins" in line)
    return [leaf_hash(line) for line in lines[begin:]]


def signed_checkpoint(folder: Path):
    note = parse_note((folder / "decisions.jsonl.tree" / "checkpoint").read_text())
    return trusted_checkpoint(note, [read_note_key(make_key(folder, "log-key")[1])])


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ((0, 0, 256), "tile/0/000"),
        ((0, 273, 112), "tile/0/273.p/112"),
        ((1, 1234067, 256), "tile/1/x001/x234/067"),
        ((2, 0, 1), "tile/2/000.p/1"),
    ],
)
def test_tiles_have_the_names_of_the_specification(place: tuple[int, int, int], name: str) -> None:
    assert tile_name(*place) == name


def test_a_checkpoint_is_of_the_lines_of_the_log(tmp_path: Path) -> None:
    keeper, log = open_tree_log(tmp_path)
    fill(log, 600)
    assert keeper.make() == {}
    log.close()

    found = signed_checkpoint(tmp_path)
    hashes = leaves(tmp_path)
    assert (found.size, found.root) == (601, root_of(hashes))
    tree = keeper.tree
    for index in (0, 255, 256, 600):
        proof = tree.inclusion(index, 601)
        require_inclusion(hashes[index], index, 601, proof, found.root)
    for old in (1, 255, 256, 257, 512, 600):
        require_consistency(old, 601, tree.consistency(old, 601), root_of(hashes[:old]), found.root)


def test_a_tree_begins_in_the_middle_of_a_log_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    plain = DecisionLog(tmp_path / "decisions.jsonl")
    fill(plain, 3)
    plain.close()
    origins = set()
    for start in (3, 7, 260):
        keeper, log = open_tree_log(tmp_path)
        fill(log, 4 if start == 3 else 253, start)
        if start != 7:  # the lines of the second run reach the tree through the log alone
            assert keeper.make() == {}
        log.close()
        origins.add(keeper.tree.saved.origin)

    found = signed_checkpoint(tmp_path)
    assert (found.size, found.root) == (1 + 4 + 253 + 253, root_of(leaves(tmp_path)))
    assert len(origins) == 1


@pytest.mark.parametrize("stopped", [False, True])
def test_a_tree_goes_on_over_a_rotation(tmp_path: Path, stopped: bool) -> None:
    path = tmp_path / "decisions.jsonl"
    keeper, log = open_tree_log(tmp_path)
    fill(log, 3)
    keeper.make()
    fill(log, 2, 3)
    path.rename(tmp_path / "decisions.jsonl.1")
    if stopped:
        log.close()
        keeper, log = open_tree_log(tmp_path)
    fill(log, 2, 5)
    assert keeper.make() == {}
    log.close()
    found = signed_checkpoint(tmp_path)
    assert (found.size, found.root) == (8, root_of(leaves(tmp_path, "decisions.jsonl.1")))


@pytest.mark.parametrize("how", ["cut", "changed", "anew", "gap"])
def test_a_log_that_its_tree_does_not_know_keeps_the_server_from_deciding(
    tmp_path: Path, how: str
) -> None:
    path = tmp_path / "decisions.jsonl"
    keeper, log = open_tree_log(tmp_path)
    fill(log, 5)
    keeper.make()
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    if how == "cut":
        path.write_bytes(b"".join(lines[:-1]))
    elif how == "changed":
        path.write_bytes(b"".join(lines).replace(b'"d4"', b'"e4"'))
    else:
        path.unlink()
        other = DecisionLog(path, begin=keeper.tree.last if how == "gap" else None)
        fill(other, 3)
        other.close()
        if how == "gap":
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))

    with pytest.raises(NoDecisionError) as refused:
        open_tree_log(tmp_path)
    assert refused.value.reason is ErrorReason.DECISION_LOG_UNAVAILABLE
    assert "do not belong together" in refused.value.message


@pytest.mark.parametrize("what", ["tile", "state", "no state"])
def test_a_damaged_tree_is_not_continued(tmp_path: Path, what: str) -> None:
    keeper, log = open_tree_log(tmp_path)
    fill(log, 5)
    keeper.make()
    log.close()
    folder = tmp_path / "decisions.jsonl.tree"
    if what == "tile":
        file = folder / "tile/0/000.p/6"
        file.write_bytes(bytes(len(file.read_bytes())))
    elif what == "state":
        (folder / "state.json").write_text("{}")
    else:
        (folder / "state.json").unlink()
    with pytest.raises(TreeError):
        make_keeper(tmp_path)


WRITER = """
import sys
from pathlib import Path
from testkit.checkpoints import open_tree_log
keeper, log = open_tree_log(Path(sys.argv[1]), interval_s=0.001)
keeper.start()
for number in range(1_000_000):
    log.append_decision({"decision_id": f"{sys.argv[2]}-{number}"}, binding=True)
    print(keeper.tree.saved.size, flush=True)
"""


def test_kill_9_leaves_a_tree_that_goes_on_and_agrees_with_the_log(tmp_path: Path) -> None:
    make_key(tmp_path, "log-key")
    before = None
    for run in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(run)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            for _ in range(60 + 17 * run):
                assert writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        assert writer.returncode == -signal.SIGKILL
        keeper, log = open_tree_log(tmp_path)
        assert keeper.make() == {}
        log.close()
        found, hashes = signed_checkpoint(tmp_path), leaves(tmp_path)
        assert (found.size, found.root) == (len(hashes), root_of(hashes))
        if before is not None:
            proof = keeper.tree.consistency(before.size, found.size)
            require_consistency(before.size, found.size, proof, before.root, found.root)
        before = found


def test_every_crash_between_two_writes_leaves_a_tree_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import loragate_server.record.tree.tree as module

    real_tile, real_state = module.write_tile, module.write_state
    writes = 0
    for crash_at in range(12):
        keeper, log = open_tree_log(tmp_path)
        fill(log, 300)
        writes = 0

        def count(write):
            def wrapped(*arguments: object) -> None:
                nonlocal writes
                writes += 1
                if writes == crash_at:  # noqa: B023
                    raise KeyboardInterrupt
                write(*arguments)

            return wrapped

        with monkeypatch.context() as patch:
            patch.setattr(module, "write_tile", count(real_tile))
            patch.setattr(module, "write_state", count(real_state))
            with contextlib.suppress(KeyboardInterrupt):
                keeper.make()
        log.close()
    keeper, log = open_tree_log(tmp_path)
    assert keeper.make() == {}
    log.close()
    found, hashes = signed_checkpoint(tmp_path), leaves(tmp_path)
    assert (found.size, found.root) == (len(hashes), root_of(hashes))
    for size in range(1, found.size, 97):
        subtree = Tiles(tmp_path / "decisions.jsonl.tree", found.size).subtree
        assert range_hash(subtree, 0, size) == root_of(hashes[:size])


def test_a_line_that_never_came_to_the_tree_keeps_it_from_being_signed(tmp_path: Path) -> None:
    keeper, log = open_tree_log(tmp_path)
    fill(log, 2)
    assert keeper.make() == {}
    log._wrote = lambda _, __: None  # what a failure of the disk at the wrong moment comes to
    fill(log, 1, 2)
    log._wrote = keeper.tree.wrote
    fill(log, 1, 3)
    assert "start the server again" in keeper.make()["tree"]
    log.close()
    keeper, log = open_tree_log(tmp_path)
    log.close()
    assert keeper.make() == {}
    found = signed_checkpoint(tmp_path)
    assert (found.size, found.root) == (5, root_of(leaves(tmp_path)))
