"""Ends a server whose owner is gone: the program that started it for itself alone."""

from __future__ import annotations

import os
import signal
import threading

_STDIN = 0
_PIECE_BYTES = 4096


def end_with_input() -> None:
    """Sends this process SIGTERM once standard input is at its end.

    The owner holds the other end of a pipe. The system closes it whichever way the owner ends, so
    that a kill leaves no server behind either; no platform's own way of telling is needed.
    """
    watch = threading.Thread(target=_wait, args=(_STDIN,), name="owner-watch", daemon=True)
    watch.start()


def _wait(descriptor: int) -> None:
    try:
        while os.read(descriptor, _PIECE_BYTES):
            pass
    except OSError:
        pass  # a pipe that cannot be read tells as much as one that is at its end
    os.kill(os.getpid(), signal.SIGTERM)
