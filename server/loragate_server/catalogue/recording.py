"""The stages policy and record: measured files become verdicts through the gate, one at a time."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from loragate_server.adapter.reference import MAX_NAME_LETTERS, AdapterReference, StoredFile
from loragate_server.catalogue.auditing import file_of
from loragate_server.catalogue.failure import failure_of
from loragate_server.catalogue.measured import unpacked
from loragate_server.catalogue.progress import DECIDED, REFUSED, SAME, Progress
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.measured import Measured, measured_otherwise
from loragate_server.gate.request import GateRequest
from loragate_server.policy.decision import GRAVITY, VerdictKind
from loragate_server.progress import Leash
from loragate_server.record.scanned import request_id
from loragate_server.record.verdict import SCAN_SERVICE, Caller, Verdict

STOPS = frozenset(
    {
        ErrorReason.DATABASE_UNAVAILABLE,
        ErrorReason.DECISION_LOG_UNAVAILABLE,
        ErrorReason.DISK_FULL,
        ErrorReason.SIGNING_UNAVAILABLE,
        ErrorReason.LIBRARY_EMPTY,
        ErrorReason.NOT_READY,
        ErrorReason.DRAINING,
    }
)
"""Reasons that are no file's: nothing could be decided about the next one either."""

Row = Mapping[str, Any]
Decide = Callable[[GateRequest, StoredFile, Measured, Leash], Awaitable[Verdict]]


class Sink(Protocol):
    """Takes rows of results."""

    def add(self, row: Mapping[str, Any]) -> None:
        """See `Results.add`."""


class Recording:
    """Takes measured files, in any order, and writes down what is decided about them.

    Args:
        scan_id: of the scan.
        base_model: name of the base model.
        decide: `Gate.decide_measured`.
        stored: `Recorder.get`.
        policy_digest: of the scan's policy.
        calibration_digest: of that which all p-values come from; "" without one.
        recorded: decisions of the scan by key; grows.
        results: takes a row for each file.
        progress: told of each file.
    """

    def __init__(
        self,
        scan_id: str,
        base_model: str,
        *,
        decide: Decide,
        stored: Callable[[str], Verdict],
        policy_digest: str,
        calibration_digest: str,
        recorded: dict[str, str],
        results: Sink,
        progress: Progress,
    ) -> None:
        self._scan_id = scan_id
        self._base_model = base_model
        self._decide = decide
        self._stored = stored
        self._policy_digest = policy_digest
        self._calibration_digest = calibration_digest
        self._recorded = recorded
        self._results = results
        self._progress = progress
        self._refused: dict[str, Mapping[str, Any]] = {}
        self._waiting: list[Row] = []

    async def take(self, row: Row) -> None:
        """Takes what came of one file.

        Raises:
            NoDecisionError: nothing can be recorded; see `STOPS`.
        """
        if row["reason"]:
            self._refuse(row, row)
        elif row["key"] in self._recorded:
            self._found(row)
        elif row["same"]:
            self._waiting.append(row)  # for the decision about the bytes at the other place
        else:
            try:
                verdict = await self._verdict(row)
            except NoDecisionError as error:
                if error.reason in STOPS:
                    raise
                self._refuse(row, failure_of(error))
            else:
                if verdict.decision.policy_digest != self._policy_digest:
                    return  # it is on record, and not of this scan, which ends
                self._recorded[row["key"]] = verdict.decision_id
                self._progress.measured(verdict.stage_times_s)
                self._add(row, verdict, DECIDED)

    def end(self) -> None:
        """Settles files whose bytes lie at other places too.

        Those whose other place was not reached are left, and a later scan finds them.
        """
        for row in self._waiting:
            if row["key"] in self._recorded:
                self._found(row)
            elif row["key"] in self._refused:
                self._refuse(row, self._refused[row["key"]])
        self._waiting.clear()

    async def _verdict(self, row: Row) -> Verdict:
        evidence, times_s = unpacked(row["measured"])
        caller = Caller(
            service=SCAN_SERVICE,
            request_id=request_id(self._scan_id, evidence.adapters[0].config_sha256),
        )
        reference = AdapterReference(declared_name=_named(row))
        request = GateRequest((reference,), self._base_model, caller)
        measured = Measured(evidence, times_s)
        if evidence.calibration_digest != self._calibration_digest:
            # An auditor that had to be started anew takes what lies there then.
            raise measured_otherwise("the p-values are of another calibration")
        return await self._decide(request, file_of(dict(row)), measured, Leash())

    def _found(self, row: Row) -> None:
        verdict = self._stored(self._recorded[row["key"]])
        # The place that the decision was made for, whose row was lost with a process, is the same.
        own = _named(row) in verdict.caller.adapter_names
        self._add(row, verdict, DECIDED if own else SAME)

    def _refuse(self, row: Row, why: Mapping[str, Any]) -> None:
        if row["key"]:
            self._refused.setdefault(row["key"], why)
        reason, message = why["reason"], f"{why['message']} {why['remedy']}"
        self._results.add(
            {**_of_file(row), "outcome": REFUSED, "reason": reason, "message": message}
        )
        self._progress.add(REFUSED)

    def _add(self, row: Row, verdict: Verdict, outcome: str) -> None:
        self._results.add({**_of_file(row), "outcome": outcome, **of_verdict(verdict)})
        self._progress.add(outcome)


def of_verdict(verdict: Verdict) -> dict[str, Any]:
    """A verdict as columns of results."""
    decision = verdict.decision
    shown: dict[str, Any] = {}
    worst = max(
        decision.findings, key=lambda one: (GRAVITY[one.verdict], one.evidence.score), default=None
    )
    allowed = decision.would_be_verdict is VerdictKind.ALLOW
    # what was ruled out for another reason was suspected of no concept
    if worst is not None and (allowed or worst.verdict is not VerdictKind.ALLOW):
        found = worst.evidence
        shown = {
            "concept_id": found.concept_id,
            "concept_name": found.concept_name,
            "severity": found.severity,
            "score": found.score,
            "p_value": found.p_value,
            "degree": found.degree,
            "stage": found.stage,
        }
    kin = () if verdict.basis is None else verdict.basis.kin
    parents = {member.sha256 for one in kin for member in one.blocked.members}
    return {
        "decision_id": verdict.decision_id,
        "decided_at": verdict.decided_at,
        "expires_at": verdict.expires_at,
        "verdict": decision.verdict.value,
        "would_be_verdict": decision.would_be_verdict.value,
        "mode": decision.mode.value,
        "remedy": decision.remedy.value,
        "reasons": [reason.code for reason in decision.reasons],
        "parents": sorted(parents),
        "stage_times_s": list(verdict.stage_times_s.items()),
        **shown,
    }


def _named(row: Row) -> str:
    """How the record names a file: it is kept for ever, and read by more people than the results.

    Of an address without who asks, with which password, and what a site has signed.
    """
    name: str = row["name"]
    if not name:
        name = row["location"]
        scheme, address, rest = name.partition("://")
        if address:
            if scheme.lower() in ("http", "https"):  # elsewhere these signs are parts of a name
                rest = re.split(r"[?#]", rest, maxsplit=1)[0]
            host, slash, path = rest.partition("/")
            name = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return name[-MAX_NAME_LETTERS:]


def _of_file(row: Row) -> dict[str, Any]:
    sha256, _, config_sha256 = row["key"].partition(".")
    return {
        "location": row["location"],
        "version": row["version"],
        "name": row["name"],
        "metadata": row["metadata"],
        "sha256": sha256 or row["sha256"],
        "config_sha256": config_sha256,
        "size_bytes": row["size_bytes"],
    }
