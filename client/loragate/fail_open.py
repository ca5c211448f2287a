"""Counts audits of this process by result, and those that let an adapter in without a decision."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Final

from loragate.errors import AuditError
from loragate.results import Verdict

log = logging.getLogger("loragate")

NO_DECISION: Final = "no_decision"
FAIL_OPEN: Final = "fail_open"
REFUSED: Final = "refused"
AUDIT_RESULTS: Final = (
    *(verdict.value.lower() for verdict in Verdict),
    NO_DECISION,
    FAIL_OPEN,
    REFUSED,
)
"""The verdict; no decision could be had; none, and let in; the service refuses the question."""

_lock = threading.Lock()
_audits = dict.fromkeys(AUDIT_RESULTS, 0)


def fail_open_total() -> int:
    """Results of this process that say ALLOW only because `on_unavailable="allow"` is set.

    `loragate.prometheus` exports it as the counter `loragate_fail_open_total`; anything above 0
    deserves an alert.
    """
    return _audits[FAIL_OPEN]


def audit_totals() -> Mapping[str, int]:
    """Audits that this process has asked for, by one of `AUDIT_RESULTS`."""
    with _lock:
        return dict(_audits)


def note_audit(result: str) -> None:
    """Counts one audit under one of `AUDIT_RESULTS`."""
    with _lock:
        _audits[result] += 1


def note_fail_open(error: AuditError) -> None:
    """Counts and logs one result that lets an adapter in without a decision."""
    note_audit(FAIL_OPEN)
    log.warning("No decision, and on_unavailable is 'allow': letting the adapter in. %s", error)
