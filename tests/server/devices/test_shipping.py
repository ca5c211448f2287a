"""Every line reaches every device, in order, whatever happens to device, server and log."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from loragate_server.config.devices import AuditDevice, FileTarget, SyslogTarget
from loragate_server.errors import NoDecisionError
from loragate_server.record.chain import Link, verify_log
from loragate_server.record.devices.position import least_taken, read_position
from loragate_server.record.devices.tail import Tail
from loragate_server.record.log import DecisionLog
from loragate_server.record.rotation import rotated_files
from testkit.audit_receivers import syslog_receiver
from testkit.waiting import eventually
from tests.server.devices.logs import Logged, lines_of

Open = Callable[..., Logged]
LIMIT_S = 20.0


def over_tcp(port: int, **options: object) -> AuditDevice:
    target = SyslogTarget(address=f"tcp://127.0.0.1:{port}")
    return AuditDevice.model_validate({"name": "siem", "syslog": target, **options})


def to_file(path: Path, **options: object) -> AuditDevice:
    target = FileTarget(path=path)
    return AuditDevice.model_validate({"name": "second", "file": target, **options})


def test_a_device_gets_the_lines_unaltered_with_their_digests(logged: Open) -> None:
    with syslog_receiver() as receiver:
        here = logged(over_tcp(receiver.port))
        here.write(20)
        assert eventually(lambda: len(receiver.received) == 20, LIMIT_S)
        assert [one.line for one in receiver.received] == lines_of(here.path)
        check = verify_log(here.path)
        assert receiver.received[-1].sha256 == check.last.sha256
        assert receiver.received[-1].head["priority"] == str(13 * 8 + 5)
        assert receiver.received[-1].head["app"] == "loragate"


def test_lines_wait_in_the_log_while_a_device_is_away_and_come_in_order(logged: Open) -> None:
    with syslog_receiver() as receiver:
        port = receiver.port
        here = logged(over_tcp(port))
        here.write(5)
        assert eventually(lambda: receiver.seqs == [1, 2, 3, 4, 5], LIMIT_S)
    here.write(40, letters=30_000)  # more than a batch holds
    assert eventually(lambda: here.devices.behind()["siem"][0] >= 40, LIMIT_S)
    assert here.devices.behind()["siem"][1] > 0
    with syslog_receiver(port) as receiver:
        assert eventually(lambda: 45 in receiver.seqs, LIMIT_S)
        assert list(dict.fromkeys(receiver.seqs))[-40:] == list(range(6, 46))
        assert eventually(lambda: here.devices.behind()["siem"] == (0, 0.0), LIMIT_S)


def test_a_server_that_starts_anew_goes_on_where_the_device_was(logged: Open) -> None:
    with syslog_receiver() as receiver:
        port = receiver.port
        here = logged(over_tcp(port))
        here.write(5)
        assert eventually(lambda: receiver.seqs == [1, 2, 3, 4, 5], LIMIT_S)
    here.write(5)
    here = logged()
    here.write(5)
    here = logged(over_tcp(port))
    with syslog_receiver(port) as receiver:
        assert eventually(lambda: receiver.seqs == list(range(6, 16)), LIMIT_S)


KILLED = """
import sys, time
from pathlib import Path
from loragate_server.config.devices import AuditDevice, SyslogTarget
from loragate_server.record.devices.devices import Devices
from loragate_server.record.devices.tail import Tail
from loragate_server.record.log import DecisionLog

log, port = Path(sys.argv[1]), sys.argv[2]
device = AuditDevice(name="siem", syslog=SyslogTarget(address=f"tcp://127.0.0.1:{port}"))
devices = Devices((device,), log.parent / "devices", log)
opened = DecisionLog(log, wrote=devices.wrote, file_bytes=4000)
devices.begin(opened.last)
while True:
    link = opened.append_note({"code": "test", "x": "y" * 200})
    print(link.seq, flush=True)
    time.sleep(0.002)
"""


def test_what_a_killed_server_had_not_shipped_comes_after_its_next_start(
    logged: Open, tmp_path: Path
) -> None:
    log = tmp_path / "state" / "decisions.jsonl"
    log.parent.mkdir()
    with syslog_receiver() as receiver:
        port = receiver.port
        killed = _killed_after(120, log, port)
        assert eventually(lambda: len(receiver.received) > 10, LIMIT_S)
        first = receiver.seqs
    assert _killed_after(killed + 120, log, port) > killed
    here = logged(over_tcp(port))
    here.write(3)
    last = here.log.last.seq
    with syslog_receiver(port) as receiver:
        assert eventually(lambda: last in receiver.seqs, LIMIT_S)
        came = [*first, *receiver.seqs]
        assert sorted(set(came)) == list(range(1, last + 1))
        assert receiver.seqs == sorted(receiver.seqs)
        assert {one.line for one in receiver.received} <= set(lines_of(log))


def _killed_after(lines: int, log: Path, port: int) -> int:
    """Writes until a line has this number, and is then killed; returns the last number."""
    program = [sys.executable, "-c", KILLED, str(log), str(port)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = 0
        for text in process.stdout:
            last = int(text)
            if last >= lines:
                process.kill()
        process.wait()
    return last


@pytest.mark.parametrize("how", ["rotated", "renamed by somebody", "copied and emptied"])
def test_lines_of_files_that_are_not_written_any_more_are_not_lost(logged: Open, how: str) -> None:
    with syslog_receiver() as receiver:
        port = receiver.port
        here = logged(over_tcp(port), file_bytes=3000 if how == "rotated" else 0)
        here.write(5)
        assert eventually(lambda: 5 in receiver.seqs, LIMIT_S)
    here.write(15, letters=500)
    if how == "renamed by somebody":
        here.path.rename(here.path.with_name("decisions.jsonl.1"))
    elif how == "copied and emptied":
        shutil.copy(here.path, here.path.with_name("decisions.jsonl.1"))
        with here.path.open("r+") as file:
            file.truncate()
    here.write(5)
    last = here.log.last.seq
    if how == "rotated":
        assert len(rotated_files(here.path)) >= 3
    with syslog_receiver(port) as receiver:
        assert eventually(lambda: last in receiver.seqs, LIMIT_S)
        assert list(dict.fromkeys(receiver.seqs))[-(last - 5) :] == list(range(6, last + 1))


def test_a_new_device_gets_what_comes_and_the_past_only_if_it_asks(
    logged: Open, tmp_path: Path
) -> None:
    logged().write(7)
    new, all_of_it = tmp_path / "new.jsonl", tmp_path / "all.jsonl"
    here = logged(
        to_file(new, name="new"), to_file(all_of_it, name="all", history=True), file_bytes=0
    )
    here.write(2)
    assert eventually(
        lambda: all_of_it.exists() and lines_of(all_of_it) == lines_of(here.path), LIMIT_S
    )
    assert eventually(lambda: lines_of(new) == lines_of(here.path)[7:], LIMIT_S)


def test_a_log_that_was_begun_anew_is_shipped_from_its_beginning(
    logged: Open, tmp_path: Path
) -> None:
    second = tmp_path / "second.jsonl"
    here = logged(to_file(second))
    here.write(9)
    old = lines_of(here.path)
    assert eventually(lambda: second.exists() and lines_of(second) == old, LIMIT_S)
    here.close()
    here.path.rename(tmp_path / "moved away")
    here = logged(to_file(second))
    here.write(2)
    assert eventually(lambda: lines_of(second) == [*old, *lines_of(here.path)], LIMIT_S)


def test_lines_that_are_gone_before_a_device_had_them_are_told_of(
    logged: Open, caplog: pytest.LogCaptureFixture
) -> None:
    with syslog_receiver() as receiver:
        port = receiver.port
        here = logged(over_tcp(port), file_bytes=1500)
        here.write(3)
        assert eventually(lambda: receiver.seqs == [1, 2, 3], LIMIT_S)
    here.close()
    unseen = DecisionLog(here.path, file_bytes=1500)
    for _ in range(20):
        unseen.append_note({"x": "y" * 300})
    unseen.close()
    gone = rotated_files(here.path)
    first_left = verify_log(here.path).last.seq - verify_log(here.path).lines + 1
    for file in gone:
        file.unlink()
    here = logged(over_tcp(port))
    here.write(1)
    with syslog_receiver(port) as receiver:
        assert eventually(lambda: here.log.last.seq in receiver.seqs, LIMIT_S)
        assert receiver.seqs[0] == first_left
    assert "of the decision log are gone; it never got them" in caplog.text
    missed = here.observer.registry.get_sample_value(
        "loragate_device_missed_lines_total", {"device": "siem"}
    )
    assert missed == first_left - 4


def test_the_position_follows_and_says_what_may_be_pruned(logged: Open, tmp_path: Path) -> None:
    second = tmp_path / "second.jsonl"
    with syslog_receiver() as receiver:
        here = logged(to_file(second), over_tcp(receiver.port))
        link = here.write(4)
        assert eventually(lambda: read_position(here.folder, "siem") == link, LIMIT_S)
        assert eventually(lambda: read_position(here.folder, "second") == link, LIMIT_S)
    here.write(4)
    assert eventually(lambda: least_taken(here.folder, here.settings) == 4, LIMIT_S)
    assert eventually(lambda: read_position(here.folder, "second") == here.log.last, LIMIT_S)


def test_a_device_that_hangs_delays_neither_the_log_nor_another_device(
    logged: Open, tmp_path: Path
) -> None:
    second = tmp_path / "second.jsonl"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts nothing, reads nothing
        here = logged(over_tcp(silent.getsockname()[1]), to_file(second))
        began = time.monotonic()
        here.write(30, letters=100_000)
        wrote_s = time.monotonic() - began
        assert eventually(lambda: len(lines_of(second)) == 30, LIMIT_S)
        assert wrote_s < LIMIT_S
        assert eventually(lambda: here.devices.behind()["second"] == (0, 0.0), LIMIT_S)
        assert here.devices.behind()["siem"][0] > 0


def test_a_position_that_cannot_be_read_is_not_guessed(logged: Open, tmp_path: Path) -> None:
    here = logged(to_file(tmp_path / "second.jsonl"))
    here.write(2)
    here.close()
    (here.folder / "second.json").write_text('{"seq": "many"}')
    with pytest.raises(NoDecisionError, match=r"second\.json does not say how far audit device"):
        Logged(here.path, here.folder, here.settings)


def test_a_log_that_was_rolled_back_is_shipped_again(logged: Open, tmp_path: Path) -> None:
    second = tmp_path / "second.jsonl"
    here = logged(to_file(second))
    here.write(4)
    backup = here.path.read_bytes()
    here.write(4)
    assert eventually(lambda: second.exists() and len(lines_of(second)) == 8, LIMIT_S)
    here.close()
    here.path.write_bytes(backup)
    here = logged(to_file(second))
    here.write(3)
    assert eventually(lambda: lines_of(second)[-3:] == lines_of(here.path)[-3:], LIMIT_S)
    assert set(lines_of(here.path)) <= set(lines_of(second))


def test_a_line_that_was_taken_back_is_not_shipped_for_the_one_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    first, log = Link(), DecisionLog(path)
    for number in range(2):
        first = log.append_note({"n": number})
    whole = path.stat().st_size
    unsynced = log.append_note({"x": "fails"})
    with closing(Tail(path, Link())) as tail:
        assert [one.link for one in tail.read(first)][-1] == first  # reads ahead in the file
        log.close()
        os.truncate(path, whole)
        log = DecisionLog(path)
        written = log.append_note({"x": "holds"})
        assert (written.seq, written == unsynced) == (3, False)
        assert [one.link for one in tail.read(written)] == [written]
    log.close()
