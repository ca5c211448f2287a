"""Every way to bend a log shows against what was handed out before it was bent."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loragate_server.record.chain import verify_log
from loragate_server.record.codec import to_json
from loragate_server.record.log import DecisionLog
from loragate_server.record.tree.note import WITNESS_KEY, Verifier, parse_note
from loragate_server.record.tree.sealed import Seen, verify_tree
from loragate_server.record.tree.signer import read_note_key
from loragate_server.record.tree.tree import read_state
from loragate_server.record.tree.trust import Trust
from testkit.checkpoints import make_key, make_witness, open_tree_log
from testkit.tamper import LINES, TAMPERINGS, rechained


def write_history(folder: Path, steps: list[int]) -> list[Seen]:
    """A log that grew in steps, with a checkpoint that was handed out after each."""
    keeper, log = open_tree_log(folder)
    _, public = make_key(folder, "log-key")
    trust = Trust([read_note_key(public)])
    seen, number = [], 0
    for step in steps:
        for _ in range(step):
            log.append_decision(
                {"decision_id": f"d{number}", "decided_at": datetime.now(UTC).isoformat()},
                binding=True,
            )
            number += 1
        assert keeper.make() == {}
        note = parse_note((keeper.tree.folder / "checkpoint").read_text())
        seen.append(trust.seen(note, f"checkpoint {len(seen)}"))
    log.close()
    return seen


def problems(folder: Path, seen: list[Seen], *, with_tree: bool = True) -> list[str]:
    """What is found, by the chain and by the checkpoints, as the command does it."""
    path, tree = folder / "decisions.jsonl", folder / "decisions.jsonl.tree"
    state = read_state(tree)
    known = (tree, state) if with_tree and state is not None else None
    by_chain = [f"chain: {one.message}" for one in verify_log(path).problems]
    return by_chain + [f"tree: {one.message}" for one in verify_tree([path], seen, tree=known)]


def test_an_honest_log_has_no_problem(tmp_path: Path) -> None:
    seen = write_history(tmp_path, [LINES, 300])
    assert problems(tmp_path, seen) == []
    assert problems(tmp_path, seen, with_tree=False) == []


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda one: one.name)
@pytest.mark.parametrize("with_tree", [True, False])
def test_what_was_bent_is_found_by_what_the_table_says(
    tmp_path: Path, tampering, with_tree: bool
) -> None:
    seen = write_history(tmp_path, [LINES])
    path = tmp_path / "decisions.jsonl"
    before = path.read_bytes()
    path.write_bytes(tampering.bend(before))
    assert path.read_bytes() != before

    found = problems(tmp_path, seen, with_tree=with_tree)

    assert any(one.startswith("chain") for one in found) == tampering.by_chain
    assert any(one.startswith("tree") for one in found)


def test_every_byte_counts(tmp_path: Path) -> None:
    seen = write_history(tmp_path, [2])
    path = tmp_path / "decisions.jsonl"
    before = path.read_bytes()
    for place in range(len(before)):
        for flipped in (1, 0x80):
            changed = bytearray(before)
            changed[place] ^= flipped
            path.write_bytes(bytes(changed))
            assert problems(tmp_path, seen, with_tree=False), (place, flipped)


def test_the_line_that_was_changed_is_named_where_the_tiles_are_there(tmp_path: Path) -> None:
    seen = write_history(tmp_path, [300])
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(rechained(path.read_bytes().replace(b'"d276"', b'"e276"')))
    assert verify_log(path).intact
    tree = tmp_path / "decisions.jsonl.tree"
    [found] = verify_tree([path], seen, tree=(tree, read_state(tree)))
    assert (found.line, found.message) == (278, "is not what checkpoint 0 has")


def test_a_rotated_file_that_is_gone_is_stood_in_for_by_its_hashes(tmp_path: Path) -> None:
    seen = write_history(tmp_path, [300])
    path, tree = tmp_path / "decisions.jsonl", tmp_path / "decisions.jsonl.tree"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[100:]))
    assert verify_tree([path], seen, tree=(tree, read_state(tree))) == ()
    assert verify_tree([path], seen) != ()
    path.write_bytes(b"".join(lines[100:]).replace(b'"d200"', b'"e200"'))
    assert verify_tree([path], seen, tree=(tree, read_state(tree))) != ()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    tail=st.integers(0, 3),
    keep=st.data(),
)
def test_no_other_log_passes_for_the_one_that_was_witnessed(
    steps: list[int], tail: int, keep: st.DataObject
) -> None:
    """Any lines at all, chained as the attacker likes, against a random choice of checkpoints."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seen = write_history(folder, steps)
        newest = seen[-1].checkpoint.size
        path = folder / "decisions.jsonl"
        lines = path.read_bytes().splitlines()
        edits = keep.draw(
            st.lists(
                st.tuples(
                    st.sampled_from(("drop", "swap", "change", "repeat", "cut", "insert")),
                    st.integers(0, len(lines) - 1),
                    st.integers(0, len(lines) - 1),
                ),
                max_size=4,
            )
        )
        bent = list(lines)
        for how, one, other in edits:
            one, other = one % max(1, len(bent)), other % max(1, len(bent))
            if not bent:
                break
            if how == "drop":
                del bent[one]
            elif how == "swap":
                bent[one], bent[other] = bent[other], bent[one]
            elif how == "change":
                bent[one] = bent[one].replace(b'"time":"2', b'"time":"1')
            elif how == "repeat":
                bent.insert(one, bent[other])
            elif how == "cut":
                del bent[one:]
            else:
                bent.insert(one, bent[other].replace(b'"d', b'"x'))
        data = b"".join(line + b"\n" for line in bent)
        path.write_bytes(rechained(data) if keep.draw(st.booleans()) else data)
        same = path.read_bytes().splitlines()[:newest] == lines[:newest]
        chosen = [*seen[:-1], seen[-1]] if keep.draw(st.booleans()) else [seen[-1]]

        if same:
            assert verify_tree([path], chosen) == ()
        else:  # lines put before the tree began are found by the chain, unless it was made anew
            assert problems(folder, chosen, with_tree=False) != []


def test_two_checkpoints_of_one_size_with_different_roots_are_a_fork(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = write_history(tmp_path / "a", [3])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    mine = write_history(tmp_path / "a", [2])
    theirs = write_history(tmp_path / "b", [2])
    found = verify_tree([tmp_path / "a" / "decisions.jsonl"], [*first, *mine, *theirs])
    assert "a fork" in found[0].message


def forged(path: Path, change: Callable[[datetime], datetime]) -> None:
    """A log whose writer lied about the time of its last line, and signed what it wrote."""
    *rest, last = path.read_bytes().splitlines()
    entry = json.loads(last)
    entry["time"] = change(datetime.fromisoformat(entry["time"])).isoformat()
    entry["verdict"]["decided_at"] = entry["time"]
    path.write_bytes(b"".join(line + b"\n" for line in (*rest, to_json(entry).encode())))


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_forged_time_shows_against_what_witnesses_saw(tmp_path: Path, hours: int) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    _, log_public = make_key(folder, "log-key")
    witness, public = make_witness(tmp_path, log_public)
    trust = Trust(
        [read_note_key(log_public)], [Verifier("witness", read_note_key(public), WITNESS_KEY)]
    )
    seen = []
    for step in range(2):
        keeper, log = open_tree_log(folder)
        for number in range(3):
            log.append_decision({"decision_id": f"{step}{number}"}, binding=True)
        log.close()
        if step == 1:  # before the line is in a checkpoint: its writer lies from the beginning
            forged(folder / "decisions.jsonl", lambda time: time + timedelta(hours=hours))
            keeper, log = open_tree_log(folder)
            log.close()
        assert keeper.make() == {}
        told = (keeper.tree.folder / "checkpoint").read_text()
        old = seen[-1].checkpoint.size if seen else 0
        proof = keeper.tree.consistency(old, keeper.tree.saved.size)
        lines = "".join(base64.b64encode(one).decode() + "\n" for one in proof)
        answer = witness.add(f"old {old}\n{lines}\n{told}".encode())
        assert answer.status == 200
        seen.append(trust.seen(parse_note(told + answer.body), f"checkpoint {step}"))
    witness.close()
    found = verify_tree([folder / "decisions.jsonl"], seen)
    assert found
    word = "was not there yet" if hours < 0 else "was there when"
    assert all(one.line == 7 for one in found)
    assert word in found[0].message


def test_a_log_is_told_from_that_of_another_replica(tmp_path: Path) -> None:
    """Each replica has its own tree; one command looks at all of them."""
    seen, files = [], []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        plain = DecisionLog(folder / "decisions.jsonl")  # lines of before there was a tree
        plain.append_note({"code": "test"})
        plain.close()
        seen.append(write_history(folder, [4, 3]))
        files.append(folder / "decisions.jsonl")
    for one in seen:
        for order in (files, files[::-1]):
            assert verify_tree(order, one, skew=timedelta(seconds=5)) == ()
    [gone] = verify_tree(files[:1], seen[1])
    assert "has no line of the tree loragate/" in gone.message
