"""What devices are given on the wire and on the disk."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from loragate_server.config.devices import OtlpTarget, SyslogTarget
from loragate_server.record.chain import Link, verify_log
from loragate_server.record.devices.file import FileSink
from loragate_server.record.devices.line import DeviceError, LogLine
from loragate_server.record.devices.otlp import OtlpSink
from loragate_server.record.devices.sealing import Sealer
from loragate_server.record.devices.syslog import MOST_DATAGRAM_BYTES, SyslogSink
from loragate_server.record.devices.tail import Tail
from testkit.audit_receivers import log_collector, parsed, syslog_receiver
from testkit.waiting import eventually
from tests.server.devices.logs import Logged, logged_line

LIMIT_S = 20.0


def test_lines_come_over_tls_from_a_receiver_that_is_known(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    own = authority.issue_cert("loragate@example.com")
    ca_file, pem = tmp_path / "ca.pem", tmp_path / "own.pem"
    authority.cert_pem.write_to_path(ca_file)
    own.private_key_and_cert_chain_pem.write_to_path(pem)
    with syslog_receiver(context=context) as receiver:
        address = f"tls://127.0.0.1:{receiver.port}"
        target = SyslogTarget(address=address, ca_file=ca_file, cert_file=pem, key_file=pem)
        sink = SyslogSink(target, 5.0)
        sink.probe()
        sink.take([logged_line(1), logged_line(2, 200_000)])
        assert eventually(lambda: receiver.seqs == [1, 2], LIMIT_S)
        sink.close()
        stranger = SyslogSink(SyslogTarget(address=address), 5.0)
        with pytest.raises(DeviceError, match=r"certificate|verify"):
            stranger.probe()


def test_a_line_that_no_datagram_can_carry_is_named_instead() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(LIMIT_S)
        port = receiver.getsockname()[1]
        sink = SyslogSink(SyslogTarget(address=f"udp://127.0.0.1:{port}"), 5.0)
        short, long = logged_line(1), logged_line(2, MOST_DATAGRAM_BYTES)
        sink.take([short, long])
        assert parsed(receiver.recv(1 << 16)).line == short.text
        named = parsed(receiver.recv(1 << 16))
        assert named.sha256 == long.link.sha256
        assert named.entry["too_long"] == len(long.text)
        sink.close()


def test_a_unix_socket_takes_lines_as_dev_log_does(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(LIMIT_S)
        sink = SyslogSink(SyslogTarget(address=f"unix:{path}"), 5.0)
        sink.take([logged_line(1)])
        assert parsed(receiver.recv(1 << 16)).seq == 1
    with pytest.raises(DeviceError, match="unix:"):
        sink.take([logged_line(2)])


def test_a_receiver_that_has_hung_up_is_noticed_before_a_line_is_lost() -> None:
    with syslog_receiver() as receiver:
        port = receiver.port
        sink = SyslogSink(SyslogTarget(address=f"tcp://127.0.0.1:{port}"), 2.0)
        sink.take([logged_line(1)])
    with pytest.raises(DeviceError, match="does not take it"):
        sink.take([logged_line(2)])
    with syslog_receiver(port) as receiver:
        sink.take([logged_line(2)])
        assert eventually(lambda: receiver.seqs == [2], LIMIT_S)
        sink.close()


def test_a_receiver_that_reads_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        sink = SyslogSink(SyslogTarget(address=address), 0.5)
        with pytest.raises(DeviceError, match=r"timed out|acknowledges nothing"):
            sink.take([logged_line(number, 1_000_000) for number in range(1, 20)])
        sink.close()


def test_a_collector_gets_headers_and_is_told_from_one_that_answers_nothing(
    tmp_path: Path,
) -> None:
    headers = tmp_path / "headers"
    headers.write_text("# of the collector\nAuthorization: Bearer abc\n\n")
    with log_collector() as collector:
        sink = OtlpSink(OtlpTarget(endpoint=collector.address, headers_file=headers), 5.0)
        sink.probe()
        assert collector.headers["authorization"] == "Bearer abc"
        line = logged_line(3)
        sink.take([line])
        assert collector.received[-1].line == line.text
        assert collector.received[-1].sha256 == line.link.sha256
        port = int(collector.address.rpartition(":")[2])
    with pytest.raises(DeviceError, match=r"UNAVAILABLE|DEADLINE"):
        sink.probe()
    with log_collector(port) as collector:
        sink.take([logged_line(4)])
        assert collector.seqs == [4]
    headers.write_text("no header\n")
    with pytest.raises(DeviceError, match="line 1"):
        sink.probe()
    sink.close()


def test_the_second_file_is_a_log_that_can_be_verified_after_any_crash(
    logged: Callable[..., Logged], tmp_path: Path
) -> None:
    here = logged()
    here.write(12)
    with closing(Tail(here.path, Link())) as tail:
        lines = tail.read(here.log.last)
    path = tmp_path / "second.jsonl"
    sink = FileSink(path)
    sink.take(lines[:8])
    sink.close()
    with path.open("ab") as file:
        file.write(lines[8].text[:50])  # torn
    again = FileSink(path)
    again.take(lines[3:10])  # the position was older than the file
    again.take(lines[10:])
    again.close()
    assert path.read_bytes() == here.path.read_bytes()
    assert verify_log(path).intact
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("sealed", [False, True])
def test_lines_that_come_again_from_long_before_the_end_of_the_file_are_not_repeated(
    logged: Callable[..., Logged], tmp_path: Path, sealed: bool
) -> None:
    here = logged()
    here.write(12)
    with closing(Tail(here.path, Link())) as tail:
        lines: Sequence[LogLine] = tail.read(here.log.last)
    if sealed:
        (tmp_path / "hmac.keys").write_bytes(base64.b64encode(b"k" * 32))
        lines = Sealer(tmp_path / "hmac.keys").sealed(lines)
    path = tmp_path / "second.jsonl"
    sink = FileSink(path)
    sink.take(lines[:10])
    sink.close()
    again = FileSink(path)  # after a crash during which several batches had been taken
    for batch in (lines[2:4], lines[4:6], lines[6:11], lines[11:]):
        again.take(batch)
    again.close()
    assert path.read_bytes() == b"".join(one.text + b"\n" for one in lines)


def test_lines_of_a_log_that_was_begun_anew_are_not_taken_for_those_of_before(
    tmp_path: Path,
) -> None:
    path = tmp_path / "second.jsonl"
    sink = FileSink(path)
    sink.take([logged_line(number, letters=1) for number in range(1, 6)])
    sink.take([logged_line(1), logged_line(2)])
    sink.close()
    assert path.read_bytes().endswith(logged_line(1).text + b"\n" + logged_line(2).text + b"\n")


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "second.jsonl"
    sink = FileSink(path)
    sink.take([logged_line(1)])
    path.rename(tmp_path / "second.jsonl.1")
    sink.take([logged_line(2)])
    assert path.read_bytes() == logged_line(2).text + b"\n"
    sink.close()


@pytest.mark.parametrize("what", ["a folder", "a link", "another file", "nowhere"])
def test_what_is_no_file_of_ours_is_not_written(tmp_path: Path, what: str) -> None:
    path = tmp_path / "second.jsonl"
    if what == "a folder":
        path.mkdir()
    elif what == "a link":
        (tmp_path / "target").touch()
        path.symlink_to(tmp_path / "target")
    elif what == "another file":
        path.write_text("shopping list\n")
    else:
        path = tmp_path / "no" / "second.jsonl"
    with pytest.raises(DeviceError, match=r"second\.jsonl cannot be written"):
        FileSink(path).take([logged_line(1)])
    if what == "another file":
        assert path.read_text() == "shopping list\n"


def test_a_second_server_does_not_write_to_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "second.jsonl"
    one, other = FileSink(path), FileSink(path)
    one.take([logged_line(1)])
    with pytest.raises(DeviceError, match="another process writes to it"):
        other.take([logged_line(1)])
    one.close()
