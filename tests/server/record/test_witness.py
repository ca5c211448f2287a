"""A checkpoint is handed to whoever takes it, and nobody takes one that bends what they know."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from loragate_server.config.checkpoints import CheckpointsSection, WitnessAddress, WitnessSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.log import DecisionLog
from loragate_server.record.tree.note import WITNESS_KEY, Verifier, parse_note, seen_at
from loragate_server.record.tree.signer import NoteSigner, read_note_key
from loragate_server.record.tree.submit import Answer
from loragate_server.record.tree.trust import read_notes
from loragate_server.record.tree.witness import Witness, WitnessError
from loragate_server.web.readiness import Readiness
from loragate_server.web.server import WebServer
from loragate_server.web.witness import WitnessDoor
from testkit.checkpoints import make_keeper, make_key, make_witness, open_tree_log


def fill(log: DecisionLog, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        log.append_decision({"decision_id": f"d{number}"}, binding=True)


@asynccontextmanager
async def serving(witness: Witness, public: Path) -> AsyncIterator[WitnessAddress]:
    def add(body: bytes) -> tuple[int, str, str]:
        answer = witness.add(body)
        return answer.status, answer.content_type, answer.body

    server = WebServer("127.0.0.1:0", CollectorRegistry(), Readiness(()))
    server.mount_witness(WitnessDoor(add))
    address = await server.start()
    try:
        yield WitnessAddress(name="witness", url=f"http://{address}/witness", public_key=public)
    finally:
        await server.close()


@pytest.fixture
def log_folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    return tmp_path / "a"


@pytest.fixture
def witness(tmp_path: Path, log_folder: Path):
    _, log_key = make_key(log_folder, "log-key")
    made, public = make_witness(tmp_path, log_key)
    yield made, public
    made.close()


def question(keeper, old: int, note: str | None = None) -> bytes:
    """What is sent to a witness about the newest checkpoint."""
    note = note or (keeper.tree.folder / "checkpoint").read_text()
    proof = keeper.tree.consistency(old, keeper.tree.saved.size)
    lines = "".join(f"{base64.b64encode(one).decode()}\n" for one in proof)
    return f"old {old}\n{lines}\n{note}".encode()


async def test_a_witness_signs_checkpoints_that_continue_each_other(
    log_folder: Path, witness, tmp_path: Path
) -> None:
    made, public = witness
    copy = tmp_path / "copy"
    before = datetime.now(UTC) - timedelta(seconds=1)
    async with serving(made, public) as address:
        keeper, log = open_tree_log(log_folder, witnesses=(address,), copies=(str(copy),))
        sizes = []
        for start in (0, 3, 300):
            fill(log, 300 if start == 3 else 2, start)
            assert await asyncio.to_thread(keeper.make) == {}
            sizes.append(keeper.tree.saved.size)
        # One that starts again knows nothing of the witness, and asks it.
        log.close()
        keeper, log = open_tree_log(log_folder, witnesses=(address,), copies=(str(copy),))
        fill(log, 1, 400)
        assert await asyncio.to_thread(keeper.make) == {}
        sizes.append(keeper.tree.saved.size)
        log.close()
    origin = keeper.tree.saved.origin.replace("/", "_")
    verifier = Verifier("witness", read_note_key(public), WITNESS_KEY)
    files = [copy / origin / "checkpoints" / f"{size:020}" for size in sizes]
    for file in (*files, copy / origin / "checkpoint", keeper.tree.folder / "checkpoint"):
        seen = seen_at(parse_note(file.read_text()), verifier)
        assert seen is not None
        assert before <= seen <= datetime.now(UTC)
    history = (keeper.tree.folder / "checkpoints.jsonl").read_text().splitlines()
    assert [json.loads(line)["note"] for line in history] == [one.read_text() for one in files]


@pytest.mark.parametrize("how", ["rolled back", "forked", "forked as long"])
async def test_a_witness_refuses_a_log_that_was_bent(
    log_folder: Path, witness, tmp_path: Path, how: str
) -> None:
    made, public = witness
    copy = tmp_path / "copy"
    async with serving(made, public) as address:
        settings = {"witnesses": (address,), "copies": (str(copy),)}
        keeper, log = open_tree_log(log_folder, **settings)
        fill(log, 3)
        await asyncio.to_thread(keeper.make)
        log.close()
        other = tmp_path / "b"
        shutil.copytree(log_folder, other)  # whoever owns the machine has its key, too
        keeper, log = open_tree_log(log_folder, **settings)
        fill(log, 3, 3)
        assert await asyncio.to_thread(keeper.make) == {}
        log.close()

        bent, log = open_tree_log(other, **settings)
        if how == "rolled back":
            fill(log, 1, 3)
        else:
            fill(log, 3 if how == "forked as long" else 9, 100)
        problems = await asyncio.to_thread(bent.make)
        log.close()
    assert set(problems) == {"witness", str(copy)}
    expected = "cut or rolled back" if how == "rolled back" else "409" if "long" in how else "422"
    assert expected in problems["witness"]
    assert ("rolled back" if how == "rolled back" else "a fork") in problems[str(copy)]


def test_a_witness_holds_every_question_to_the_protocol(log_folder: Path, witness) -> None:
    made, _ = witness
    keeper, log = open_tree_log(log_folder)
    fill(log, 3)
    keeper.make()
    log.close()
    note = (keeper.tree.folder / "checkpoint").read_text()
    other, _ = make_key(log_folder.parent, "other-key")
    foreign = make_keeper(log_folder, name="x")
    foreign._signer = type(foreign._signer)("x", (other,))
    strange = foreign._signer.signed("strange/1\n4\n" + base64.b64encode(bytes(32)).decode() + "\n", "strange/1").whole  # noqa: E501  # fmt: skip
    for body, status in [
        (b"", 400),
        (b"\xff", 400),
        (b"old 00\n\n" + note.encode(), 400),
        (b"old -1\n\n" + note.encode(), 400),
        (b"old 0\nAAAA\n\n" + note.encode(), 400),
        (b"old 0\n" + 64 * (base64.b64encode(bytes(32)) + b"\n") + b"\n" + note.encode(), 400),
        (b"old 9\n\n" + note.encode(), 400),
        (b"old 0\n\n" + strange.encode(), 403),
        (b"old 0\n\n" + note.replace("\n4\n", "\n5\n").encode(), 403),
        (b"old 0\n" + base64.b64encode(bytes(32)) + b"\n\n" + note.encode(), 422),
        (b"old 2\n\n" + note.encode(), 409),
    ]:
        answer = made.add(body)
        assert answer.status == status, body
        assert answer.body.endswith("\n")
    assert made.add(question(keeper, 0)).status == 200
    again = made.add(question(keeper, 0))
    assert (again.status, again.content_type, again.body) == (409, "text/x.tlog.size", "4\n")
    assert made.add(question(keeper, 4)).status == 200


@pytest.mark.parametrize(
    ("first", "then", "status"),
    [
        (("one",), ("one",), 200),
        (("one",), ("other",), 403),
        (("one",), ("other", "one"), 403),
        (("one",), ("later", "one"), 200),
        (("one", "later"), ("later",), 200),
        (("one", "other"), ("other",), 403),
        (("gone",), ("other",), 200),
    ],
    ids=[
        "the same key",
        "that of another log",
        "that of another log as well",
        "its next key as well",
        "its next key alone",
        "two logs from the beginning",
        "an old key that is gone",
    ],
)
def test_a_tree_is_continued_by_its_own_log_alone(
    log_folder: Path, tmp_path: Path, first: tuple[str, ...], then: tuple[str, ...], status: int
) -> None:
    keys = {name: make_key(tmp_path, name) for name in ("one", "later", "other", "gone")}
    signer = NoteSigner("witness.key", (make_key(tmp_path, "witness-key")[0],))

    def ask(*, trusted: list[tuple[str, ...]], signed: tuple[str, ...], old: int) -> Answer:
        logs = [tuple(read_note_key(keys[name][1]) for name in one) for one in trusted]
        here = Witness(tmp_path / "memory", "witness", signer, logs)
        text = parse_note((keeper.tree.folder / "checkpoint").read_text()).text
        note = NoteSigner("checkpoints.key", tuple(keys[name][0] for name in signed)).signed(
            text, keeper.tree.saved.origin
        )
        try:
            return here.add(question(keeper, old, note.whole))
        finally:
            here.close()

    keeper, log = open_tree_log(log_folder)
    fill(log, 2)
    keeper.make()
    known = [("one", "later"), ("other",)]
    begun = ask(trusted=[*known, ("gone",)], signed=first, old=0)
    if first == ("one", "other"):
        assert (begun.status, "keys of 2 logs" in begun.body) == (403, True)
        return
    assert begun.status == 200
    before = keeper.tree.saved.size
    fill(log, 2, 2)
    keeper.make()
    log.close()
    answer = ask(trusted=known, signed=then, old=before)
    assert answer.status == status
    assert (status == 200) or "another key" in answer.body or "keys of 2 logs" in answer.body


def test_whoever_knows_a_checkpoint_cannot_fill_the_disk_of_a_witness(
    log_folder: Path, witness
) -> None:
    made, public = witness
    keeper, log = open_tree_log(log_folder)
    fill(log, 3)
    keeper.make()
    log.close()
    note = (keeper.tree.folder / "checkpoint").read_text()
    junk = f"\N{EM DASH} anybody {base64.b64encode(bytes(30_000)).decode()}\n"
    assert made.add(question(keeper, 0, note + junk)).status == 200
    memory = log_folder.parent / "memory"
    size = sum(file.stat().st_size for file in memory.rglob("*"))
    assert size < 10_000
    for _ in range(20):
        answer = made.add(question(keeper, 4, note + junk))
        assert answer.status == 200
        seen = parse_note(note + answer.body)
        assert seen_at(seen, Verifier("witness", read_note_key(public), WITNESS_KEY))
    assert sum(file.stat().st_size for file in memory.rglob("*")) == size


def test_a_history_with_a_torn_end_is_whole_again_with_the_next_checkpoint(
    log_folder: Path, witness
) -> None:
    made, _ = witness
    keeper, log = open_tree_log(log_folder)
    keeper.make()
    assert made.add(question(keeper, 0)).status == 200
    [history] = log_folder.parent.glob("memory/*/checkpoints.jsonl")
    with history.open("ab") as file:
        file.write(b'{"note": "loragate/0123')
    fill(log, 3)
    keeper.make()
    log.close()
    assert made.add(question(keeper, 1)).status == 200
    assert len(read_notes(str(history))) == 2


def test_a_witness_that_lost_its_memory_signs_nothing(log_folder: Path, witness) -> None:
    made, _ = witness
    keeper, log = open_tree_log(log_folder)
    keeper.make()
    log.close()
    assert made.add(question(keeper, 0)).status == 200
    [newest] = log_folder.parent.glob("memory/*/checkpoint")
    newest.unlink()
    answer = made.add(question(keeper, 0))
    assert (answer.status, "is gone" in answer.body) == (500, True)


def test_the_memory_of_a_witness_belongs_to_one_process(log_folder: Path, witness) -> None:
    with pytest.raises(WitnessError, match="runs already"):
        make_witness(log_folder.parent, make_key(log_folder, "log-key")[1])


def test_nothing_is_decided_while_checkpoints_are_overdue(log_folder: Path, tmp_path: Path) -> None:
    now = [100.0]
    closed = tmp_path / "no-folder"
    closed.write_text("a file, where a folder should be")
    keeper = make_keeper(log_folder, copies=(str(closed),), interval_s=5, stop_after_s=10)
    keeper._clock = lambda: now[0]
    log = keeper.open_log(log_folder / "decisions.jsonl")
    fill(log, 1)
    assert set(keeper.make()) == {str(closed)}
    keeper.require_in_time()
    now[0] += 11
    with pytest.raises(NoDecisionError) as refused:
        keeper.require_in_time()
    assert refused.value.reason is ErrorReason.DECISION_LOG_UNAVAILABLE
    assert keeper.behind_s() == {"tree": 0.0, str(closed): 11.0}
    closed.unlink()
    assert keeper.make() == {}
    keeper.require_in_time()
    log.close()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (CheckpointsSection, {"copies": ("a", "a")}),
        (CheckpointsSection, {"stop_after_s": 100}),
        (CheckpointsSection, {"copies": ("a",), "stop_after_s": 1}),
        (WitnessSection, {"logs": ("key.pub",)}),
        (WitnessSection, {"logs": ((),), "key": {"id": "w", "file": "w.pem"}}),
    ],
)
def test_settings_that_contradict_each_other_are_refused(kind: type, settings: dict) -> None:
    with pytest.raises(ValueError, match=r"twice|needs|at least|belong together|no keys"):
        kind(**settings)


def test_a_log_that_changes_its_key_is_a_list_of_both() -> None:
    told = {"key": {"id": "w", "file": "w.pem"}, "logs": ["a.pub", ["b.pub", "c.pub"]]}
    files = WitnessSection.model_validate(told).keys_of_logs
    assert files == ((Path("a.pub"),), (Path("b.pub"), Path("c.pub")))


def test_a_copy_is_written_whole_or_not_at_all(log_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    keeper, log = open_tree_log(log_folder, copies=(str(copy),))
    assert keeper.make() == {}
    [newest] = copy.glob("*/checkpoint")
    before, number = newest.read_bytes(), newest.stat().st_ino
    fill(log, 1)
    assert keeper.make() == {}
    log.close()
    assert newest.read_bytes() != before
    assert newest.stat().st_ino != number  # another file took its place
    assert not [one for one in copy.rglob("*") if one.is_file() and one.stat().st_size == 0]
