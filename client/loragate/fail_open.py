"""Says which errors leave a choice, and counts what became of the audits of this process.

The choice is `on_unavailable`. "allow" is for a service that is not there, and for nothing that a
file, its place or a request could bring about: else a bad file could open the gate for itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Final

from loragate.errors import AuditError, DeadlineExceeded, Exhausted, Internal, Unavailable
from loragate.results import SERVICE_UNAVAILABLE, AuditResult, Reason, Remedy, Verdict

log = logging.getLogger("loragate")

NO_DECISION: Final = "no_decision"
FAIL_OPEN: Final = "fail_open"
REFUSED: Final = "refused"
ACCEPTED: Final = "accepted_signed"
AUDIT_RESULTS: Final = (
    *(verdict.value.lower() for verdict in Verdict),
    NO_DECISION,
    FAIL_OPEN,
    REFUSED,
    ACCEPTED,
)
"""The verdict; no decision could be had; none, and let in; the service refuses the question; nobody
was asked, as a signed verdict from elsewhere allows it."""

_UNAVAILABLE: Final = frozenset(
    {
        # No server there, or one that is starting, stopping or cannot write decisions down.
        ("UNAVAILABLE", ""),
        ("UNAVAILABLE", "NOT_READY"),
        ("UNAVAILABLE", "DRAINING"),
        ("UNAVAILABLE", "DECISION_LOG_UNAVAILABLE"),
        ("UNAVAILABLE", "DATABASE_UNAVAILABLE"),
    }
)
_LATE: Final = frozenset({("DEADLINE_EXCEEDED", ""), ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")})
"""Status codes with reasons of `loragate.v1.ErrorReason`. What is not here is not covered: not a
reason that is new, nor a code that comes with a reason of another one."""

_lock = threading.Lock()
_audits = dict.fromkeys(AUDIT_RESULTS, 0)
_pilot = 0


def is_unavailability(error: AuditError, *, sources_elsewhere: bool) -> bool:
    """Whether `on_unavailable="allow"` covers an error. The one place that says so.

    Args:
        error: why there is no decision.
        sources_elsewhere: the service had to fetch bytes from a path or URI. Whoever serves them
            chooses how long that takes, so a deadline that passes says nothing of the service.
    """
    answer = (error.code, error.reason)
    covered = answer in _UNAVAILABLE or (answer in _LATE and not sources_elsewhere)
    # By the list; the classes are made for people who catch errors, and may only narrow it.
    return covered and leaves_choice(error)


def leaves_choice(error: AuditError) -> bool:
    """Whether `on_unavailable="block"` makes a BLOCK of an error instead of raising it.

    More than `is_unavailability`: a service without room has not decided either.
    """
    return isinstance(error, Unavailable | Exhausted | DeadlineExceeded)


def without_decision(error: AuditError, choice: str, *, sources_elsewhere: bool) -> AuditResult:
    """The verdict by `on_unavailable`, where the error leaves room for one; else raises it.

    Args:
        error: why there is no decision.
        choice: what `on_unavailable` says.
        sources_elsewhere: as of `is_unavailability`.
    """
    if choice == "allow" and is_unavailability(error, sources_elsewhere=sources_elsewhere):
        note_fail_open(error)
        verdict = Verdict.ALLOW
    elif choice != "raise" and leaves_choice(error):
        note_audit(NO_DECISION)
        verdict = Verdict.BLOCK
    else:
        undecided = leaves_choice(error) or isinstance(error, Internal)
        note_audit(NO_DECISION if undecided else REFUSED)
        raise error
    return AuditResult(
        verdict=verdict,
        would_be_verdict=verdict,
        remedy=Remedy.NONE,
        reasons=(Reason(SERVICE_UNAVAILABLE, str(error)),),
        cause=error,
    )


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


def pilot_total() -> int:
    """Results of this process that say ALLOW only because the policy is a pilot's."""
    return _pilot


def note_answer(result: AuditResult) -> None:
    """Counts one decision; what a pilot lets in although its policy is against it is logged."""
    global _pilot
    note_audit(result.verdict.value.lower())
    if result.only_by_pilot:
        with _lock:
            _pilot += 1
        log.info(
            "Only the pilot mode of the policy lets this in; enforcing, it says %s (decision %s).",
            result.would_be_verdict,
            result.decision_id,
        )


def note_fail_open(error: AuditError) -> None:
    """Counts and logs one result that lets an adapter in without a decision."""
    note_audit(FAIL_OPEN)
    log.warning("No decision, and on_unavailable is 'allow': letting the adapter in. %s", error)
