"""What `loragate-server catalogue` looks at before a base model is loaded."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from loragate_server.cli.options import EXIT_FAILED, fail

if TYPE_CHECKING:
    from loragate_server.catalogue.listing import Source

_WAIT_S = 5.0


def opened(source: str, *, may_be_empty: bool) -> Source:
    """The source, looked into before a base model is loaded and directions are built for it."""
    from loragate_server.catalogue.listing import SourceError, open_source

    try:
        found = open_source(source)
        empty = not may_be_empty and next(found.entries(), None) is None
    except SourceError as error:
        fail(str(error), EXIT_FAILED)
    if empty:
        told = f"There is no adapter in {source}. Is it the right place? --allow-empty accepts it."
        fail(told, EXIT_FAILED)
    return found


def require_reachable(address: str) -> None:
    """Ends the command where nothing listens at a cluster's address; Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # such as auto
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_WAIT_S).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        fail(
            f"--address {address}: no Ray cluster answers there ({why}); name that of its head "
            "(ray://HEAD:10001, or HEAD:6379), or leave it out to use this machine",
            EXIT_FAILED,
        )
