"""The decision log: chain, crashes, rotation, full disks."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.chain import GENESIS, verify_log
from loragate_server.record.log import DecisionLog


def fill(log: DecisionLog, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        log.append_decision({"decision_id": f"d{number}"}, binding=True)


def entries(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def refusal(act, reason: ErrorReason) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as caught:
        act()
    assert caught.value.reason is reason
    return caught.value


def test_lines_form_a_chain_that_continues_after_a_restart(log_path: Path) -> None:
    for start in (0, 3):
        log = DecisionLog(log_path)
        fill(log, 3, start)
        log.close()
    check = verify_log(log_path)
    assert check.intact
    assert check.decision_ids == tuple(f"d{i}" for i in range(6))
    assert (check.lines, check.first_prev, check.last.seq) == (6, GENESIS, 6)
    assert log_path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("line", [0, 2, 4])
def test_an_edited_line_is_found(log_path: Path, line: int) -> None:
    log = DecisionLog(log_path)
    fill(log, 6)
    log.close()
    lines = log_path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"binding":true', b'"binding":false')
    log_path.write_bytes(b"".join(lines))
    check = verify_log(log_path)
    assert [p.line for p in check.problems] == [line + 2]
    assert "does not follow" in check.problems[0].message


@pytest.mark.parametrize("change", ["remove", "swap", "insert", "garbage", "repeat"])
def test_a_removed_moved_or_inserted_line_is_found(log_path: Path, change: str) -> None:
    log = DecisionLog(log_path)
    fill(log, 5)
    log.close()
    lines = log_path.read_bytes().splitlines(keepends=True)
    if change == "remove":
        del lines[2]
    elif change == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    elif change == "insert":
        lines.insert(2, lines[0])
    elif change == "garbage":
        lines[2] = b"{}\n"
    else:
        lines.append(lines[-1])
    log_path.write_bytes(b"".join(lines))
    assert not verify_log(log_path).intact


@given(data=st.data())
def test_any_changed_byte_before_the_last_line_is_found(data: st.DataObject, shared_log) -> None:
    path, original = shared_log
    end = original[:-1].rindex(b"\n") + 1
    index = data.draw(st.integers(0, end - 1))
    value = data.draw(st.integers(0, 255).filter(lambda v: v != original[index]))
    path.write_bytes(original[:index] + bytes([value]) + original[index + 1 :])
    assert not verify_log(path).intact


@pytest.fixture(scope="module")
def shared_log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("log") / "log"
    log = DecisionLog(path)
    fill(log, 4)
    log.close()
    return path, path.read_bytes()


@pytest.mark.parametrize(
    "torn", [b'{"seq":4,"prev"', b"\0" * 100, b"\0" * 99 + b"\n", b"x" * 200_000, b"\n"]
)
def test_a_torn_last_line_is_kept_aside_and_noted(log_path: Path, torn: bytes) -> None:
    log = DecisionLog(log_path)
    fill(log, 3)
    log.close()
    with log_path.open("ab") as file:
        file.write(torn)
    assert not verify_log(log_path).intact
    log = DecisionLog(log_path)
    fill(log, 1, 3)
    log.close()
    assert log_path.with_name("decisions.jsonl.torn-1").read_bytes() == torn
    note = entries(log_path)[3]["note"]
    assert (note["code"], note["bytes"]) == ("torn_line_set_aside", len(torn))
    assert note["file"] == "decisions.jsonl.torn-1"
    check = verify_log(log_path)
    assert check.intact
    assert check.decision_ids == ("d0", "d1", "d2", "d3")


def test_torn_lines_of_several_crashes_are_all_kept(log_path: Path) -> None:
    for number in (1, 2, 3):
        with log_path.open("ab") as file:
            file.write(b"torn %d" % number)
        DecisionLog(log_path).close()
    kept = [log_path.with_name(f"{log_path.name}.torn-{n}").read_bytes() for n in (1, 2, 3)]
    assert kept == [b"torn 1", b"torn 2", b"torn 3"]
    assert verify_log(log_path).intact


def test_a_file_that_is_no_decision_log_is_left_alone(log_path: Path) -> None:
    log_path.write_text("some\nother\nfile\n")
    error = refusal(lambda: DecisionLog(log_path), ErrorReason.DECISION_LOG_UNAVAILABLE)
    assert "move it aside" in error.message


WRITER = """
import sys
from pathlib import Path
from loragate_server.record.log import DecisionLog
log = DecisionLog(Path(sys.argv[1]))
for number in range(1_000_000):
    log.append_decision({"decision_id": f"{sys.argv[2]}-{number}", "x": "y" * 3000}, binding=True)
    print(f"{sys.argv[2]}-{number}", flush=True)
"""


def test_what_was_acknowledged_before_kill_9_is_in_an_intact_log(log_path: Path) -> None:
    acknowledged: list[str] = []
    for run in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(log_path), str(run)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            acknowledged += [writer.stdout.readline().decode().strip() for _ in range(7 + run)]
            writer.send_signal(signal.SIGKILL)
            # What is still in the pipe was acknowledged as well; a cut-off word was not.
            rest = writer.stdout.read().decode().splitlines(keepends=True)
            acknowledged += [word.strip() for word in rest if word.endswith("\n")]
        assert writer.returncode == -signal.SIGKILL
    DecisionLog(log_path).close()
    check = verify_log(log_path)
    assert check.intact
    assert len(acknowledged) >= 34
    assert set(acknowledged) <= set(check.decision_ids)


def test_threads_write_one_chain(log_path: Path) -> None:
    log = DecisionLog(log_path)
    threads = [threading.Thread(target=fill, args=(log, 10, 10 * i)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    check = verify_log(log_path)
    assert check.intact
    assert sorted(check.decision_ids) == sorted(f"d{i}" for i in range(80))


def test_a_second_writer_is_refused(log_path: Path) -> None:
    first = DecisionLog(log_path)
    error = refusal(lambda: DecisionLog(log_path), ErrorReason.DECISION_LOG_UNAVAILABLE)
    assert "another process writes to it" in error.message
    first.close()
    DecisionLog(log_path).close()


@pytest.mark.parametrize("how", ["moved", "moved and made anew", "copied and emptied"])
def test_the_chain_continues_over_a_rotation(log_path: Path, how: str) -> None:
    log = DecisionLog(log_path)
    fill(log, 3)
    old = log_path.with_name("decisions.jsonl.1")
    if how == "copied and emptied":
        old.write_bytes(log_path.read_bytes())
        os.truncate(log_path, 0)
    else:
        log_path.rename(old)
    if how == "moved and made anew":
        log_path.touch(0o600)
    fill(log, 3, 3)
    log.close()
    new = verify_log(log_path)
    assert new.intact
    assert new.first_prev == verify_log(old).last.sha256
    assert verify_log(old, log_path).decision_ids == tuple(f"d{i}" for i in range(6))
    assert verify_log(old, log_path).intact
    assert verify_log(old, log_path).chains == 1
    assert verify_log(log_path, old).chains == 2


def test_a_log_that_was_moved_away_while_stopped_begins_a_new_chain(log_path: Path) -> None:
    old = log_path.with_name("old")
    for file in (old, log_path):
        log = DecisionLog(file)
        fill(log, 2)
        log.close()
    check = verify_log(old, log_path)
    assert check.intact
    assert check.chains == 2


def test_lines_of_somebody_else_stop_the_log_until_it_is_moved_aside(log_path: Path) -> None:
    log = DecisionLog(log_path)
    fill(log, 2)
    with log_path.open("ab") as file:
        file.write(b"{}\n")
    for act in (lambda: fill(log, 1, 2), log.check):
        error = refusal(act, ErrorReason.DECISION_LOG_UNAVAILABLE)
        assert "something else wrote to it" in error.message
    log_path.rename(log_path.with_name("aside"))
    fill(log, 1, 2)
    log.close()
    assert verify_log(log_path).decision_ids == ("d2",)


@pytest.mark.parametrize("kind", ["missing folder", "folder", "link", "fifo", "device", "closed"])
def test_a_log_that_cannot_be_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log"
    if kind == "missing folder":
        path = tmp_path / "no" / "log"
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/full")
    else:
        log = DecisionLog(path)
        log.close()
        refusal(lambda: fill(log, 1), ErrorReason.DECISION_LOG_UNAVAILABLE)
        return
    refusal(lambda: DecisionLog(path), ErrorReason.DECISION_LOG_UNAVAILABLE)


def test_a_full_disk_refuses_the_decision_and_leaves_the_log_whole(
    small_disk: Path, fill_disk
) -> None:
    path = small_disk / "log"
    log = DecisionLog(path)
    fill(log, 3)
    log.check()
    ballast = fill_disk(small_disk)
    refusal(log.check, ErrorReason.DISK_FULL)

    def write_much() -> None:
        log.append_decision({"decision_id": "lost", "x": "y" * 20_000}, binding=True)

    size = path.stat().st_size
    error = refusal(write_much, ErrorReason.DISK_FULL)
    assert error.retry_after_s is not None
    assert path.stat().st_size == size
    assert verify_log(path).intact
    ballast.unlink()
    fill(log, 1, 3)
    log.close()
    check = verify_log(path)
    assert check.intact
    assert check.decision_ids == ("d0", "d1", "d2", "d3")


LIMITED = """
import resource, sys
from pathlib import Path
from loragate_server.errors import NoDecisionError
from loragate_server.record.log import DecisionLog
log = DecisionLog(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
done = 0
try:
    while True:
        log.append_decision({"decision_id": f"d{done}", "x": "y" * 300}, binding=True)
        done += 1
except NoDecisionError as error:
    reason = error.reason
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append_decision({"decision_id": "after"}, binding=True)
print(reason, done)
"""


def test_a_line_that_was_written_in_part_is_taken_back(log_path: Path) -> None:
    # The limit lets a first part of the line through, as a disk that fills up does.
    out = subprocess.run(
        [sys.executable, "-c", LIMITED, str(log_path)], check=True, capture_output=True, text=True
    ).stdout.split()
    assert out[0] == "DECISION_LOG_UNAVAILABLE"
    check = verify_log(log_path)
    assert check.intact
    assert check.decision_ids == (*(f"d{i}" for i in range(int(out[1]))), "after")
    assert not list(log_path.parent.glob("*.torn-*"))


def test_a_whole_line_that_was_not_synced_and_not_taken_back_counts_for_nothing(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrote: list[int] = []
    log = DecisionLog(log_path, wrote=lambda link, _: wrote.append(link.seq))
    fill(log, 2)

    def fail(*_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        # A disk that fails while it syncs and truncates cannot be had on demand.
        patch.setattr(os, "ftruncate", fail)
        patch.setattr(os, "fsync", fail)
        for _ in range(3):
            refusal(lambda: fill(log, 1, 2), ErrorReason.DECISION_LOG_UNAVAILABLE)
    assert not list(log_path.parent.glob("*.torn-*"))
    fill(log, 1, 3)
    assert len(list(log_path.parent.glob("*.torn-*"))) == 1
    log.close()
    check = verify_log(log_path)
    assert check.intact
    assert check.decision_ids == ("d0", "d1", "d3")
    assert wrote == list(range(1, wrote[-1] + 1))


def test_a_line_that_could_not_be_taken_back_is_set_aside(
    log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = DecisionLog(log_path)
    fill(log, 2)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fail(fd: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        # A disk that fails while truncating cannot be had on demand.
        patch.setattr(os, "ftruncate", fail)
        resource.setrlimit(resource.RLIMIT_FSIZE, (log_path.stat().st_size + 50, limit[1]))
        try:
            refusal(lambda: fill(log, 1, 2), ErrorReason.DECISION_LOG_UNAVAILABLE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not verify_log(log_path).intact
    fill(log, 1, 3)
    log.close()
    check = verify_log(log_path)
    assert check.intact
    assert check.decision_ids == ("d0", "d1", "d3")
    assert len(log_path.with_name(f"{log_path.name}.torn-1").read_bytes()) == 50
