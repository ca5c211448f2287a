"""Ctrl-C while modules are loaded, which is most of what a short command does."""

from __future__ import annotations

import os
import signal
from types import FrameType

_IMPORTING = "<frozen importlib._bootstrap>"


def end_in_imports() -> None:
    """Has SIGINT end the process at once while a module is loaded; else it is KeyboardInterrupt.

    In the middle of an import there is nothing to tidy up, and libraries take the exception for a
    part that is missing: numpy would try again until the recursion is too deep, and the command
    would end with a traceback and the exit code of something that is wrong.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, say
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        frame = frame.f_back
    raise KeyboardInterrupt
