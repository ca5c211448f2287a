"""Allow and deny lists: what the operator has already said about these very bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from loragate_server.audit.evidence import CoverageEvidence
from loragate_server.policy.decision import Reason
from loragate_server.policy.document import AllowedAdapter, ListedAdapter
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
    metadata alone. Who allows a file has seen its metadata, which loaders read, and what lies
    beside it: no other one is, and not with another `adapter_config.json`.

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
    asked = [(one.sha256, one.config_sha256) for one in adapters]
    matching = [e for e in policy.allow if e.sha256 in sha256s]
    active = {_with_config(e): e for e in matching if e.active(now)}
    if asked and all(one in active for one in asked):
        used = [active[one] for one in dict.fromkeys(asked)]
        reasons = tuple(_reason("allow_listed", "is on the allow list", e) for e in used)
        return Listing(False, True, reasons, _first_end(used))
    return Listing(False, False, tuple(_unmet(matching, active.keys(), asked, now)), None)


def _with_config(entry: AllowedAdapter) -> tuple[str, str]:
    return entry.sha256, entry.config_sha256 or ""


def _unmet(
    matching: Sequence[AllowedAdapter],
    active: Collection[tuple[str, str]],
    asked: Sequence[tuple[str, str]],
    now: datetime,
) -> Iterator[Reason]:
    """Why entries about these files do not count."""
    for entry in matching:
        if not entry.active(now):
            yield _reason(
                "allow_list_lapsed", f"was on the allow list until {entry.expires}", entry
            )
    for sha256, config_sha256 in dict.fromkeys(asked):
        entries = [e for e in matching if e.sha256 == sha256 and e.active(now)]
        if entries and (sha256, config_sha256) not in active:
            seen = (
                f"came with an adapter_config.json of config_sha256 {config_sha256}"
                if config_sha256
                else "came without an adapter_config.json"
            )
            what = f"{seen}, for which the allow list has no entry"
            yield _reason("allow_list_config", what, entries[0])


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
