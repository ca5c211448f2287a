"""The ports of the server: found taken before models are loaded, and refused with a remedy."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable
from contextlib import closing
from pathlib import Path

from loragate_server.config.listen import split_address
from loragate_server.config.schema import StartError

GRPC, HTTP = "grpc", "http"
"""The flags of `serve`, and the keys below `listen`."""


async def listening(start: Awaitable[str], address: str, port: str) -> str:
    """The address on which a port listens.

    Args:
        start: begins to listen.
        address: as configured.
        port: `GRPC`, `HTTP`, or the setting that holds the address.

    Raises:
        StartError: it cannot.
    """
    try:
        return await start
    except (OSError, RuntimeError, ValueError) as error:
        raise _refused(address, port, error) from error


def require_free(address: str, port: str) -> None:
    """Binds an address and lets it go, so that one that is taken shows at once.

    Raises:
        StartError: it cannot be bound.
    """
    try:
        if address.startswith("unix:"):
            _require_free_path(Path(address.removeprefix("unix:").removeprefix("//")))
        else:
            _require_free_port(*split_address(address))
    except OSError as error:
        raise _refused(address, port, error) from error


def _require_free_port(host: str, port: int) -> None:
    """A name may have several addresses; one that can be bound suffices, as for who listens."""
    refused: OSError | None = None
    for family, kind, protocol, _, place in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        with closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError as error:
                refused = error
                if error.errno == errno.EADDRINUSE:
                    break
            else:
                return
    if refused is not None:
        raise refused


def _require_free_path(path: Path) -> None:
    """Somebody who answers there would lose the socket to us without a word."""
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise OSError(errno.EADDRINUSE, "address already in use")


def _refused(address: str, port: str, error: Exception) -> StartError:
    named = f"--{port} (listen.{port})" if port in (GRPC, HTTP) else port
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE or "in use" in str(error):
        why = f"another process listens there. Stop it, or name another address with {named}"
    elif number == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        why = (
            f"this machine has no such address. Name one of its own with {named}, "
            "or 0.0.0.0 for all"
        )
    elif number == errno.EACCES:
        why = f"that is not allowed. Take a port from 1024 on with {named}"
    else:
        cause = getattr(error, "strerror", None) or str(error)
        why = f"{cause}. Name another address with {named}"
    return StartError(f"cannot listen on {address}: {why}.")
