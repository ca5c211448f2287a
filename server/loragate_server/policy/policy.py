"""`Policy`: the operator's rules, validated and resolved, ready for `decide`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from loragate_server.policy.decision import Mode, Remedy, VerdictKind
from loragate_server.policy.document import AllowedAdapter, Limits, ListedAdapter
from loragate_server.policy.lineage import LineageRules

ANYBODY = "*"
"""Stands for every caller, one without an authenticated name included."""


@dataclass(frozen=True)
class Thresholds:
    """When a concept counts as suspected or learned. A level that is None is not used.

    A level is reached when ANY of its measures is reached: the score is at least `*_score`, or
    the p-value over all concepts is at most `*_p_value`. Nothing is reached below `min_degree`.

    Attributes:
        review_own_p_value: the same for the concept's own p-value, which does not pay for how many
            concepts were asked about.
        min_degree: degree of penetration, 0 to 100, below which a concept is let through.
        block_degree_uncalibrated: the same, below which a concept that no calibration speaks for
            is suspected at most.
        on_block: verdict when the block level is reached, BLOCK or REVIEW.
        remedy: fixed remedy at the block level; None takes the one of the concept's severity.
    """

    block_score: float | None
    block_p_value: float | None
    review_score: float | None
    review_p_value: float | None
    review_own_p_value: float | None
    min_degree: float
    block_degree_uncalibrated: float
    on_block: VerdictKind
    remedy: Remedy | None


class Subject(Protocol):
    """What a rule asks about a concept."""

    @property
    def concept_id(self) -> str:
        """Its id in the library."""

    @property
    def category(self) -> str:
        """What kind of thing it is."""

    @property
    def severity(self) -> str:
        """How grave it is."""


@dataclass(frozen=True)
class Rule:
    """Thresholds for the concepts that match all given criteria. An empty criterion matches all."""

    name: str
    concepts: frozenset[str]
    categories: frozenset[str]
    severities: frozenset[str]
    thresholds: Thresholds

    def matches(self, concept: Subject) -> bool:
        """Whether this rule speaks about the concept."""
        return (
            (not self.concepts or concept.concept_id in self.concepts)
            and (not self.categories or concept.category in self.categories)
            and (not self.severities or concept.severity in self.severities)
        )


@dataclass(frozen=True)
class Policy:
    """One version of the policy file.

    Attributes:
        screen_miss_rate: share of learned concepts that the screen may let through without a
            look by the response stage.
        when_inconclusive: the verdict when the audit cannot vouch; never ALLOW.
        verdict_ttl_s: seconds after which the caller has to ask again.
        remedies: severity to remedy at the block level.
        lineage: the verdicts for adapters that come from blocked ones.
        digest: lower-case hexadecimal sha256 of the bytes of the file.
        restrict: authenticated names of callers that may ask about some concepts only; `ANYBODY`
            among them stands for every caller.
    """

    mode: Mode
    defaults: Thresholds
    rules: tuple[Rule, ...]
    remedies: Mapping[str, Remedy]
    allow: tuple[AllowedAdapter, ...]
    deny: tuple[ListedAdapter, ...]
    limits: Limits
    when_inconclusive: VerdictKind
    verdict_ttl_s: float
    digest: str
    screen_miss_rate: float = 0.01
    restrict: frozenset[str] = frozenset()
    lineage: LineageRules = field(default_factory=LineageRules)
    file: str = field(default="policy.yaml", compare=False)

    @cached_property
    def denied(self) -> frozenset[str]:
        """The digests on the deny list, lapsed ones included."""
        return frozenset(entry.sha256 for entry in self.deny)

    def thresholds_for(self, concept: Subject) -> Thresholds:
        """The thresholds of the first matching rule, or the defaults."""
        for rule in self.rules:
            if rule.matches(concept):
                return rule.thresholds
        return self.defaults

    def may_restrict(self, identity: str) -> bool:
        """Whether a caller may ask about some concepts only.

        Args:
            identity: its authenticated name; empty where the server does not authenticate.
        """
        return ANYBODY in self.restrict or (bool(identity) and identity in self.restrict)

    def remedy_for(self, severity: str) -> Remedy:
        """The remedy of a severity; a severity that is not known gets the gravest one."""
        return self.remedies.get(severity, Remedy.WITHDRAW_AND_CALL_LEGAL)
