"""What nobody expected, as callers are told of it: a fault of the server, or no memory left."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import uuid

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.out_of_memory import is_out_of_memory

RETRY_AFTER_S = 5.0

_log = logging.getLogger(__name__)


def audit_failed(error: BaseException) -> NoDecisionError:
    """Logs an unexpected exception under a fresh id, and hides its text from the caller.

    Returns:
        OUT_OF_MEMORY, which may pass, else AUDIT_FAILED.
    """
    incident = uuid.uuid4().hex
    _log.error("audit failed, incident %s", incident, exc_info=error)
    if is_out_of_memory(error):
        _release_memory(error)
        return NoDecisionError(
            ErrorReason.OUT_OF_MEMORY,
            "The audit ran out of memory.",
            remedy="Ask again with fewer or smaller adapters, or give the server more memory, or "
            "its base model a smaller batch_rows.",
            metadata={"incident": incident},
            retry_after_s=RETRY_AFTER_S,
        )
    return NoDecisionError(
        ErrorReason.AUDIT_FAILED,
        "The audit failed by a fault of the server.",
        remedy=f"Look for incident {incident} in the server's log.",
        metadata={"incident": incident},
    )


def _release_memory(error: BaseException) -> None:
    """Lets go of the failed audit's tensors, which the traceback's frames hold."""
    import torch

    error.__traceback__ = None
    error.__context__ = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def log_stack(thread: threading.Thread, silent_s: float) -> None:
    """Says where a thread hangs: names of functions and lines, no values."""
    frame = sys._current_frames().get(thread.ident or 0)
    where = "".join(traceback.format_stack(frame)) if frame is not None else ""
    _log.error("an audit gave no sign of life for %.0f s and is given up:\n%s", silent_s, where)
