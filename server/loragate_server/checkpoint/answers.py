"""How the checkpoint answers: each outcome with what the client is told."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from types import MappingProxyType

from loragate_server.checkpoint.outcome import CheckOutcome
from loragate_server.checkpoint.result import NO_EXTRACTOR, Result
from loragate_server.checkpoint.statuses import (
    OF_REFUSALS,
    UNAVAILABLE,
    status_of,
    with_retry,
)
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import (
    Denial,
    Extraction,
    RefusalCode,
    RefusedRequestError,
)
from loragate_server.intercept.passing import PASS, WARN
from loragate_server.policy.reasons import told_without_numbers
from loragate_server.record.verdict import Verdict

_log = logging.getLogger(__name__)

_PASSED_BY: Mapping[str, Result] = MappingProxyType(
    {"": Result.ALLOW_NO_ADAPTER, WARN: Result.UNKNOWN_WARNED, PASS: Result.UNKNOWN_PASSED}
)


def unknown_extractor() -> CheckOutcome:
    """The proxy names an extractor that is not configured."""
    denial = _plain_denial(
        UNAVAILABLE,
        "extractor_unknown",
        "loragate: the proxy names no extractor that is configured. Set "
        "intercept.default_extractor, or name one of intercept.extractors in the proxy.",
    )
    return CheckOutcome(Result.REFUSED, NO_EXTRACTOR, denial=denial)


def without_adapter(name: str, extraction: Extraction) -> CheckOutcome:
    """Passes: nothing is loaded, or nobody knows the route and the setting lets it pass."""
    return CheckOutcome(_PASSED_BY[extraction.unlisted], name)


def refused(name: str, extractor: ImageServer, error: RefusedRequestError) -> CheckOutcome:
    """The extractor, or a door, refuses the request."""
    text = f"{error.message} {error.remedy}"
    denial = extractor.deny(OF_REFUSALS[error.code], error.code.value, text, "")
    unlisted = error.code is RefusalCode.ROUTE_UNLISTED
    return CheckOutcome(Result.UNKNOWN_DENIED if unlisted else Result.REFUSED, name, denial=denial)


def no_decision(
    name: str, extractor: ImageServer, error: NoDecisionError, extraction: Extraction
) -> CheckOutcome:
    """The gate has not decided."""
    # An error names the offending value, which may be an address with a token in it.
    told = _WITHOUT_VALUES.get(error.reason, error.message)
    if error.adapter is not None and error.adapter < len(extraction.places):
        place = extraction.places[error.adapter]
        holder = (*extraction.holders, "")[min(error.adapter, len(extraction.holders))]
        named = f"It is named at {place} ({holder})." if holder else f"It is named at {place}."
        told = " ".join(filter(None, (told, named, extractor.unless_adapter(place, holder))))
    denial = extractor.deny(status_of(error), error.reason.value.lower(), told, "")
    return CheckOutcome(Result.NO_DECISION, name, denial=with_retry(denial, error))


_WITHOUT_VALUES: Mapping[ErrorReason, str] = {
    ErrorReason.PATH_NOT_ALLOWED: "The adapter lies where none may be loaded from.",
    ErrorReason.SOURCE_NOT_FOUND: "The adapter was not found.",
    ErrorReason.SOURCE_NOT_ENABLED: "Adapters of this kind of source are not enabled.",
    ErrorReason.SOURCE_UNREADABLE: "The adapter could not be read from its source.",
    ErrorReason.REQUEST_INVALID: "The request names its adapters in a way that cannot be audited.",
}


def failed(name: str, error: Exception) -> CheckOutcome:
    """A fault of the server. The exception's text may quote the request, so it is not logged."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("a check by %s failed with %s\n%s", name, type(error).__name__, frames)
    denial = _plain_denial(
        UNAVAILABLE, "check_failed", "loragate: the request could not be checked; see its log."
    )
    return CheckOutcome(Result.NO_DECISION, name, denial=denial)


def code_of(verdict: Verdict) -> str:
    """What a program is told of a verdict that does not let pass."""
    return f"adapter_{verdict.decision.verdict.value.lower()}"


def explanation(verdict: Verdict) -> str:
    """One line for the sender: the verdict, the concepts found, and the first reason.

    Without numbers, whoever the proxy is: the sender may be the one who changes a file until it
    passes.
    """
    decision = verdict.decision
    concepts = [
        one.evidence.concept_name for one in decision.findings if one.verdict is decision.verdict
    ]
    about = f" ({', '.join(concepts[:5])})" if concepts else ""
    reason = f" {told_without_numbers(decision.reasons[0])}" if decision.reasons else ""
    return f"loragate: {decision.verdict.value}{about}.{reason}"


def _plain_denial(status: int, code: str, message: str) -> Denial:
    """A denial where no extractor knows the form that the client expects."""
    body = {"error": {"code": code, "message": message, "decision_id": ""}}
    return Denial(status, json.dumps(body).encode())
