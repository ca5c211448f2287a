"""Which recorded decisions are asked for, and whether one that comes is of them."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from loragate.results import AuditResult, Verdict


class ListOptions(TypedDict, total=False):
    """What `list` takes by keyword, in both clients.

    Attributes:
        adapter_sha256: only decisions over an adapter with this digest.
        verdict: only decisions with this verdict.
        service: only decisions that this service asked for, by the name that it gave.
        base_model: only decisions on the base model of this name.
        since: only decisions of this moment or later; timezone-aware.
        before: only decisions of before this moment; timezone-aware.
        page_size: decisions per request, 50 unless it is given and at most 100.
        timeout: seconds for each page.
    """

    adapter_sha256: str
    verdict: Verdict | None
    service: str
    base_model: str
    since: datetime | None
    before: datetime | None
    page_size: int
    timeout: float | None


def require_asked_for(result: AuditResult, asked: ListOptions) -> None:
    """Refuses a decision that was not asked for; who has asked, none tells.

    Raises:
        ValueError: it is another one, as a service sends that knows fewer filters.
    """
    digest, verdict = asked.get("adapter_sha256", "").lower(), asked.get("verdict")
    since, before, made = asked.get("since"), asked.get("before"), result.decided_at
    fits = (
        verdict in (None, result.verdict)
        and digest in ("", *(adapter.sha256 for adapter in result.adapters))
        and asked.get("base_model", "") in ("", result.base_model)
        and (since is None or (made is not None and made >= since))
        and (before is None or (made is not None and made < before))
    )
    if not fits:
        raise ValueError(f"the decision {result.decision_id!r} was not asked for")
