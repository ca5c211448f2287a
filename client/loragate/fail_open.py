"""Counts the adapters that were let in without a decision, so that somebody can notice."""

from __future__ import annotations

import logging
import threading

from loragate.errors import AuditError

log = logging.getLogger("loragate")

_lock = threading.Lock()
_total = 0


def fail_open_total() -> int:
    """Results of this process that say ALLOW only because `on_unavailable="allow"` is set.

    Export it as the counter `loragate_fail_open_total`; anything above 0 deserves an alert.
    """
    return _total


def note_fail_open(error: AuditError) -> None:
    """Counts and logs one such result."""
    global _total
    with _lock:
        _total += 1
    log.warning("No decision, and on_unavailable is 'allow': letting the adapter in. %s", error)
