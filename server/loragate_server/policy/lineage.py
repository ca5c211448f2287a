"""Known bad comes back: adapters whose weights are, or hold, those of a blocked one.

A file that is rounded, resized, renamed or trained a little further has another digest and may
look harmless at another strength or in another company. What its weights have in common with a
blocked adapter's does not change so easily; `gate.kinship` measures it, and the policy says what
follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loragate_server.policy.decision import GRAVITY, Decision, Reason, VerdictKind
from loragate_server.policy.known import (
    COPY_CODE,
    LINEAGE_CODES,
    PART_CODE,
    UNSEEN_CODE,
    KnownUse,
    as_used,
)
from loragate_server.policy.overrule import overruled

__all__ = ["COPY_CODE", "LINEAGE_CODES", "PART_CODE", "UNSEEN_CODE"]


@dataclass(frozen=True)
class Kin:
    """What an adapter, or several that are active together, have of a blocked one.

    Attributes:
        blocked: how that one was blocked; one file, alone.
        adapter: index into `Evidence.adapters`; None for what they add up to.
        share: of the adapter's change, squared, that is the blocked one's; 0 to 1.
        amount: how much of the blocked change it carries, at the strength that is asked about; 1
            is as much as was blocked. 0 where the adapters add up to more than was looked at, so
            that nobody knows.
        copy: whether the two point the same way, so that it is that adapter again; else it holds
            it among other things.
    """

    copy: bool
    share: float
    amount: float
    adapter: int | None
    blocked: KnownUse


@dataclass(frozen=True)
class LineageRules:
    """The verdict for an adapter that comes from a blocked one; ALLOW only says so.

    Attributes:
        copies: for what is a blocked adapter again.
        parts: for what holds one among other things.
    """

    copies: VerdictKind = VerdictKind.REVIEW
    parts: VerdictKind = VerdictKind.REVIEW

    def verdict_of(self, code: str) -> VerdictKind:
        """What follows from a finding with this code; of what may be either, the graver one."""
        found = {COPY_CODE: (self.copies,), PART_CODE: (self.parts,)}
        return max(found.get(code, (self.copies, self.parts)), key=GRAVITY.__getitem__)


def apply_lineage(decision: Decision, kin: Sequence[Kin], rules: LineageRules) -> Decision:
    """The decision after what its adapters have of blocked ones.

    Args:
        decision: as the policy and the record of the same files made it.
        kin: what was found; see `gate.lineage_book`.
        rules: of the policy in force.
    """
    return with_lineage(decision, [_told(decision, one) for one in kin], rules)


def with_lineage(decision: Decision, reasons: Sequence[Reason], rules: LineageRules) -> Decision:
    """The decision after reasons with `LINEAGE_CODES`, which another one may have given."""
    vouched = any(reason.code == "allow_listed" for reason in decision.reasons)
    if not reasons or vouched:
        return decision
    gravest = max((rules.verdict_of(one.code) for one in reasons), key=GRAVITY.__getitem__)
    if GRAVITY[gravest] <= GRAVITY[decision.would_be_verdict]:
        return replace(decision, reasons=(*decision.reasons, *reasons))
    return overruled(decision, gravest, reasons, decision.ttl_s)


def _told(decision: Decision, kin: Kin) -> Reason:
    parent = (
        f"{as_used(kin.blocked.members)} (decision {kin.blocked.decision_id} of "
        f"{kin.blocked.decided_at:%Y-%m-%d})"
    )
    if not kin.amount:
        told = (
            "The adapters together can be used in more ways than are held against blocked ones; "
            f"some may be one again, or hold one: {parent}."
        )
        return Reason(UNSEEN_CODE, told)
    if kin.adapter is None:
        who, whose = "The adapters together", "what they change"
        copy, part = "are a blocked adapter again", "hold a blocked adapter among other things"
    else:
        own = decision.evidence.adapters[kin.adapter].sha256
        same = any(own == one.sha256 for one in kin.blocked.members)
        who, whose = f"Adapter {own[:12]}", "its change"
        other = "with another adapter_config.json" if same else "under another digest"
        copy = f"is a blocked adapter again, {other}"
        part = "holds a blocked adapter among other things"
    numbers = f"; {kin.share:.0%} of {whose} is that adapter's, {kin.amount:.2g} times."
    sentence = f"{who} {copy if kin.copy else part}: {parent}"
    told, plain = f"{sentence}{numbers}", f"{sentence}."
    return Reason(COPY_CODE, told, plain) if kin.copy else Reason(PART_CODE, told, plain)
