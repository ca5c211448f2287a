"""`SyslogSink`: lines as messages of RFC 5424, over TCP, TLS, UDP or a Unix socket.

On a stream each message begins with its length (octet counting, RFC 6587 and 5425), so that no line
can be taken for two. A stream answers nothing: what is known is that the receiver's machine has
acknowledged every byte, which is waited for, not what its program then did with it.
"""

from __future__ import annotations

import array
import os
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from loragate_server.config.devices import SyslogTarget
from loragate_server.record.codec import to_json
from loragate_server.record.devices.line import DeviceError, LogLine

NOTICE = 5
MOST_DATAGRAM_BYTES = 60_000
"""Of a message; UDP carries 65,507 with headers of IPv4."""

_FIRST_LOOK_S = 0.0005
_LAST_LOOK_S = 0.02


class SyslogSink:
    """Sends to one receiver; connects when it has to."""

    def __init__(self, target: SyslogTarget, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._host = (socket.gethostname() or "-")[:255]
        self._socket: socket.socket | None = None

    def take(self, lines: Sequence[LogLine]) -> None:
        """Sends them; on a stream, until all bytes are acknowledged."""
        try:
            if self._target.transport in ("udp", "unix"):
                for one in lines:
                    self._connected().send(self._datagram(one))
            else:
                self._stream(b"".join(map(self._framed, lines)))
        except (OSError, ValueError) as error:  # ssl raises both
            self.close()
            raise DeviceError(self._cause(error)) from error

    def probe(self) -> None:
        """Connects, or looks whether the receiver has hung up."""
        try:
            self._connected()
        except (OSError, ValueError) as error:
            self.close()
            raise DeviceError(self._cause(error)) from error

    def close(self) -> None:
        """Closes the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _stream(self, data: bytes) -> None:
        end_s = time.monotonic() + self._timeout_s
        connection = self._connected()
        connection.sendall(data)
        pause_s = _FIRST_LOOK_S
        while _unacknowledged(connection):
            if time.monotonic() > end_s:
                raise TimeoutError(f"it acknowledges nothing within {self._timeout_s:g} s")
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_LOOK_S)
        if _hung_up(connection):
            raise ConnectionResetError("it has hung up")

    def _connected(self) -> socket.socket:
        if self._socket is not None and _hung_up(self._socket):
            self.close()
        if self._socket is None:
            self._socket = self._connect()
        return self._socket

    def _connect(self) -> socket.socket:
        parts = urlsplit(self._target.address)
        if parts.scheme == "unix":
            return _connected_datagrams(socket.AF_UNIX, parts.path, self._timeout_s)
        host, port = str(parts.hostname), int(parts.port or 0)
        if parts.scheme == "udp":
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            return _connected_datagrams(found[0][0], found[0][4], self._timeout_s)
        connection = socket.create_connection((host, port), self._timeout_s)
        try:
            _keep_alive(connection)
            if parts.scheme == "tls":
                return self._context().wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise
        return connection

    def _context(self) -> ssl.SSLContext:
        """Made anew for each connection, so that renewed certificates are used."""
        target = self._target
        context = ssl.create_default_context(
            cafile=None if target.ca_file is None else str(target.ca_file.expanduser())
        )
        if target.cert_file is not None and target.key_file is not None:
            context.load_cert_chain(target.cert_file.expanduser(), target.key_file.expanduser())
        return context

    def _framed(self, line: LogLine) -> bytes:
        message = self._message(line, line.text)
        return b"%d %s" % (len(message), message)

    def _datagram(self, line: LogLine) -> bytes:
        """A line that no datagram can carry is named instead; the log has it."""
        message = self._message(line, line.text)
        if len(message) <= MOST_DATAGRAM_BYTES:
            return message
        named = {"seq": line.link.seq, "sha256": line.link.sha256, "kind": line.kind,
                 "too_long": len(line.text)}  # fmt: skip
        return self._message(line, to_json(named).encode("ascii"))

    def _message(self, line: LogLine, text: bytes) -> bytes:
        target, link = self._target, line.link
        data = f'[{target.structured_data_id} seq="{link.seq}" sha256="{link.sha256}"]'
        head = f"<{8 * target.facility + NOTICE}>1 {line.time or '-'} {self._host}"
        return (
            f"{head} loragate {os.getpid()} {line.kind} {data} ".encode("ascii", "replace") + text
        )

    def _cause(self, error: Exception) -> str:
        words = str(getattr(error, "strerror", None) or error or type(error).__name__)
        return f"{self._target.address} does not take it: {words.splitlines()[0]}"


def _connected_datagrams(family: int, address: object, timeout_s: float) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.settimeout(timeout_s)
        made.connect(address)  # type: ignore[arg-type]
    except BaseException:
        made.close()
        raise
    return made


def _keep_alive(connection: socket.socket) -> None:
    """Has a receiver noticed that vanished while nothing was sent, within half a minute."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for option, value in (
            (socket.TCP_KEEPIDLE, 15),
            (socket.TCP_KEEPINTVL, 5),
            (socket.TCP_KEEPCNT, 3),
        ):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _hung_up(connection: socket.socket) -> bool:
    """Whether the other side has closed a stream; what it says otherwise is of no interest."""
    if connection.type != socket.SOCK_STREAM:
        return False
    timeout_s = connection.gettimeout()
    connection.settimeout(0)
    try:
        while connection.recv(4096):
            pass
        return True
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(timeout_s)


def _unacknowledged(connection: socket.socket) -> int:
    """Bytes that the receiver's machine has not acknowledged; 0 where that cannot be known."""
    if sys.platform != "linux":
        return 0
    import fcntl
    import termios

    count = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, count)
    return count[0]
