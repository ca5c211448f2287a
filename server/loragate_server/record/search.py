"""`Search`: which recorded decisions somebody wants to see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, exists

from loragate_server.policy.decision import VerdictKind
from loragate_server.record.tables import audited_adapters, audits, findings, reviews

_PREFIX = re.compile("[0-9a-f]{8,63}")


@dataclass(frozen=True)
class Search:
    """Conditions that all have to hold. What is empty or None is no condition.

    Attributes:
        answered: the verdict that callers were answered.
        verdict: what the policy decided, which in pilot mode is another.
        adapter_sha256: of any of the adapters; its first 8 hexadecimal digits or more will do.
        since: timezone-aware; the first moment that belongs to the span.
        until: timezone-aware; the first moment that no longer belongs to it.
        concept_id: the policy acted on this concept.
        severities: it acted on a concept of one of these; on that one, where both are given.
        least_degree: it acted on a concept that was penetrated this much or more, 0 to 100.
        reviewer: this person has acted on its review, whichever way.
    """

    answered: VerdictKind | None = None
    verdict: VerdictKind | None = None
    adapter_sha256: str = ""
    service: str = ""
    tenant: str = ""
    base_model: str = ""
    since: datetime | None = None
    until: datetime | None = None
    concept_id: str = ""
    severities: tuple[str, ...] = ()
    least_degree: float | None = None
    reviewer: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The conditions as text, which page tokens are bound to."""
        words = (
            self.adapter_sha256,
            self.answered or "",
            self.verdict or "",
            self.service,
            self.tenant,
            self.base_model,
            self.since.isoformat() if self.since else "",
            self.until.isoformat() if self.until else "",
        )
        degree = "" if self.least_degree is None else repr(self.least_degree)
        later = (self.concept_id, ",".join(self.severities), degree, self.reviewer)
        # Tokens that an older version gave go on being good where these are not used.
        return (*words, *later) if any(later) else words


def conditions(search: Search) -> list[ColumnElement[bool]]:
    """The same in SQL, on the table `audits`."""
    wanted: list[ColumnElement[bool]] = []
    if search.answered is not None:
        wanted.append(audits.c.verdict == search.answered.value)
    if search.verdict is not None:
        wanted.append(audits.c.would_be_verdict == search.verdict.value)
    if search.since is not None:
        wanted.append(audits.c.decided_at >= search.since)
    if search.until is not None:
        wanted.append(audits.c.decided_at < search.until)
    for column, text in (
        (audits.c.caller_service, search.service),
        (audits.c.caller_tenant, search.tenant),
        (audits.c.base_model, search.base_model),
    ):
        if text:
            wanted.append(column == storable(text))
    if search.adapter_sha256:
        of_audit = audited_adapters.c.decision_id == audits.c.decision_id
        wanted.append(exists().where(of_audit, _same_adapter(search.adapter_sha256)))
    found = _of_finding(search)
    if found:
        wanted.append(exists().where(findings.c.decision_id == audits.c.decision_id, *found))
    if search.reviewer:
        about = reviews.c.subject_key == audits.c.subject_key
        wanted.append(exists().where(about, reviews.c.reviewer == storable(search.reviewer)))
    return wanted


def _of_finding(search: Search) -> list[ColumnElement[bool]]:
    """What has to hold of one and the same concept that the policy acted on."""
    wanted: list[ColumnElement[bool]] = []
    if search.concept_id:
        wanted.append(findings.c.concept_id == storable(search.concept_id))
    if search.severities:
        wanted.append(findings.c.severity.in_(search.severities))
    if search.least_degree is not None:
        wanted.append(findings.c.degree >= search.least_degree)
    return wanted


def storable(text: str) -> str:
    """Text for a column that is only searched; the payload keeps the original.

    PostgreSQL refuses NUL, and no database takes lone surrogates.
    """
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _same_adapter(digits: str) -> ColumnElement[bool]:
    sha256 = audited_adapters.c.sha256
    if _PREFIX.fullmatch(digits) is None:
        return sha256 == storable(digits)
    # A range, because the index serves it; LIKE would depend on the database's collation.
    start = storable(digits)
    return (sha256 >= start) & (sha256 < start + "g")
