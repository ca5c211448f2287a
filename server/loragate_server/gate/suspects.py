"""`Suspects`: evidence that is waiting for a person, to be judged again after the review."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from loragate_server.audit.evidence import Evidence
from loragate_server.gate.key import VerdictKey
from loragate_server.policy.decision import Decision, VerdictKind

SUSPECTS_REMEMBERED = 64


class Suspects:
    """Evidence that left a decision to a person, so that the review costs no second audit.

    Belongs to one event loop; the least recently used go first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[VerdictKey, Evidence] = OrderedDict()

    def get(self, key: VerdictKey, miss_rate: float) -> Evidence | None:
        """The evidence of an equal question, whatever policy and reviews said then.

        Args:
            key: of the question.
            miss_rate: the policy's `screen_miss_rate`, by which audits stop early.
        """
        question = _question(key, miss_rate)
        evidence = self._entries.get(question)
        if evidence is not None:
            self._entries.move_to_end(question)
        return evidence

    def put(self, key: VerdictKey, miss_rate: float, decision: Decision) -> None:
        """Remembers what a decision was made from, if there is anything to review about it."""
        if all(finding.verdict is not VerdictKind.REVIEW for finding in decision.findings):
            return
        question = _question(key, miss_rate)
        self._entries[question] = decision.evidence
        self._entries.move_to_end(question)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)


def _question(key: VerdictKey, miss_rate: float) -> VerdictKey:
    """The part of a key that evidence depends on; of a policy that is the miss rate alone."""
    return replace(
        key,
        policy_digest=repr(miss_rate),
        review_ids=(),
        known_ids=(),
        lineage_ids=(),
        twins=(),
        dry_run=False,
    )
