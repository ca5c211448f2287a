"""A real rsyslogd takes the lines whole, over the stream that is counted by octets."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loragate_server.config.devices import AuditDevice, SyslogTarget
from testkit.waiting import eventually
from tests.server.devices.logs import Logged, lines_of

LIMIT_S = 20.0
PROGRAM = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin:/sbin")
SETTINGS = """
global(maxMessageSize="1m" workDirectory="{folder}")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="{port}")
template(name="line" type="string" string="%structured-data% %msg%\\n")
action(type="omfile" file="{folder}/taken" template="line")
"""

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="Debian's rsyslog brings rsyslogd")


@pytest.fixture
def rsyslogd(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Its port, and the file that it writes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = tmp_path / "rsyslog.conf"
    settings.write_text(SETTINGS.format(folder=tmp_path, port=port))
    command = [str(PROGRAM), "-n", "-f", str(settings), "-i", str(tmp_path / "pid")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        yield port, tmp_path / "taken"
        process.terminate()


def test_rsyslogd_takes_every_line_whole(
    rsyslogd: tuple[int, Path], logged: Callable[..., Logged]
) -> None:
    port, taken = rsyslogd
    target = SyslogTarget(address=f"tcp://127.0.0.1:{port}")
    here = logged(AuditDevice(name="siem", required=True, syslog=target))
    here.write(10, letters=40_000)
    assert eventually(lambda: here.devices.behind()["siem"][0] == 0, LIMIT_S)
    here.devices.require()
    assert eventually(
        lambda: taken.exists() and len(taken.read_bytes().splitlines()) == 10, LIMIT_S
    )
    came = [line.partition(b'"] ') for line in taken.read_bytes().splitlines()]
    assert [line for _, _, line in came] == lines_of(here.path)
    assert came[4][0].startswith(b'[loragate@32473 seq="5" sha256="')
