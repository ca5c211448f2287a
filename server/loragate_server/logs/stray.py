"""What would reach standard error beside the log, made part of it, so that every line is JSON."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from types import TracebackType

_uncaught = logging.getLogger("uncaught")
_stderr = logging.getLogger("stderr")


def catch_stray_output() -> None:
    """Sends uncaught errors and whatever is printed on standard error through the log."""
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_of_thread
    sys.unraisablehook = _log_unraisable
    # gRPC's core writes past Python; it reads this when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _stderr.setLevel(logging.WARNING)  # whatever the level of the rest
    sys.stderr = StrayLines()


class StrayLines(io.TextIOBase):
    """Text that becomes one warning per line."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self) -> None:
        super().__init__()
        self._begun = ""

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Logs what has come to its end, and keeps the rest."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._log(line)
        return len(text)

    def close(self) -> None:
        """Logs what is left."""
        self._log(self._begun)
        self._begun = ""

    @staticmethod
    def _log(line: str) -> None:
        if line.strip():
            _stderr.warning("%s", line.rstrip())


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    _uncaught.critical("%s", error or kind.__name__, exc_info=(kind, error, trace))


def _log_uncaught_of_thread(arguments: threading.ExceptHookArgs) -> None:
    error = arguments.exc_value
    if error is not None:
        name = arguments.thread.name if arguments.thread else "a thread"
        _uncaught.critical("%s ended by an error", name, exc_info=error)


def _log_unraisable(arguments: sys.UnraisableHookArgs) -> None:
    _uncaught.error(
        "%s %r",
        arguments.err_msg or "error ignored in",
        arguments.object,
        exc_info=arguments.exc_value,
    )
