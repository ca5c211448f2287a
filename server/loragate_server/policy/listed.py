"""Allow and deny lists: what the operator has already said about these very bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from loragate_server.audit.evidence import CoverageEvidence
from loragate_server.policy.decision import Reason
from loragate_server.policy.document import ListedAdapter
from loragate_server.policy.policy import Policy


@dataclass(frozen=True)
class Listing:
    """What the lists say about a set of adapters.

    Attributes:
        denied: whether any adapter of the set is on the deny list.
        allowed: whether every adapter is on the allow list and none is denied.
        reasons: one per entry that matters, lapsed allow entries included.
        ends_at: when the first entry that was used lapses, or None.
    """

    denied: bool
    allowed: bool
    reasons: tuple[Reason, ...]
    ends_at: datetime | None


def decide_listed(policy: Policy, adapters: Sequence[CoverageEvidence], now: datetime) -> Listing:
    """Looks the adapters up. The deny list wins; the allow list needs every one of the set.

    Who denies a file denies its weights, for another file with the same ones differs in its
    metadata alone. Who allows a file has seen its metadata, which loaders read: no other one is.

    Args:
        policy: whose lists to look in.
        adapters: that will be active together.
        now: timezone-aware; entries whose last day has passed do not count.
    """
    sha256s = [one.sha256 for one in adapters]
    stands_for = {twin: one.sha256 for one in adapters for twin in one.same_weights_as}
    stands_for |= {sha256: sha256 for sha256 in sha256s}
    denied = [e for e in policy.deny if e.active(now) and e.sha256 in stands_for]
    if denied:
        reasons = tuple(_denied(e, stands_for[e.sha256]) for e in denied)
        # The deny verdict holds until the last denying entry lapses, but asking early is harmless.
        return Listing(True, False, reasons, _first_end(denied))
    matching = [e for e in policy.allow if e.sha256 in sha256s]
    active = {e.sha256: e for e in matching if e.active(now)}
    lapsed = tuple(
        _reason("allow_list_lapsed", f"was on the allow list until {e.expires}", e)
        for e in matching
        if not e.active(now)
    )
    if sha256s and all(sha256 in active for sha256 in sha256s):
        reasons = tuple(_reason("allow_listed", "is on the allow list", e) for e in active.values())
        return Listing(False, True, reasons, _first_end(list(active.values())))
    return Listing(False, False, lapsed, None)


def _denied(entry: ListedAdapter, sha256: str) -> Reason:
    """Args: `sha256` is of the file asked about: the listed one, or one with its weights."""
    what = "is on the deny list"
    if sha256 != entry.sha256:
        what += f", and adapter {sha256[:12]} has the same weights"
    return _reason("deny_listed", what, entry)


def _first_end(entries: Sequence[ListedAdapter]) -> datetime | None:
    ends = [e.ends_at for e in entries if e.ends_at is not None]
    return min(ends, default=None)


def _reason(code: str, what: str, entry: ListedAdapter) -> Reason:
    return Reason(code, f"Adapter {entry.sha256[:12]} {what}: {entry.note}")
