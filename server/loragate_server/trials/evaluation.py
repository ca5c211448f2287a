"""`Evaluation`: what an operator's own server says about adapters whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import floor
from typing import Any

from loragate_server.shares import CONFIDENCE, interval

PASSED, BLOCKED = "ALLOW", "BLOCK"


@dataclass(frozen=True)
class Judged:
    """One adapter and the verdict that the policy would bind its caller to.

    Attributes:
        file: name of its file.
        sha256: of its bytes, lower-case hexadecimal.
        learned: ids of the concepts that it learned; none for a harmless one.
        named: id of the concept that stands out most.
        p_value: lowest over all concepts, of how often a harmless adapter is as suspicious.
        reasons: codes, gravest first.
    """

    file: str
    sha256: str
    learned: tuple[str, ...]
    verdict: str
    named: str
    p_value: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Rate:
    """A share that was counted, with its Clopper-Pearson interval at CONFIDENCE."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """The share; nothing of nothing is not a number."""
        return self.count / self.of if self.of else float("nan")

    @property
    def bounds(self) -> tuple[float, float]:
        """Between these the true share lies, as far as chance goes."""
        return interval(self.count, self.of)

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        low, high = self.bounds
        return {
            "count": self.count,
            "of": self.of,
            "share": None if not self.of else self.value,
            "low": low,
            "high": high,
        }


@dataclass(frozen=True)
class Row:
    """What came of the adapters of one concept, or of all of them.

    Attributes:
        blocked: verdicts BLOCK.
        stopped: all verdicts but ALLOW: blocked, or left to a person.
        named: the learned concept stands out most, whatever the verdict.
    """

    concept_id: str
    blocked: Rate
    stopped: Rate
    named: Rate

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "concept": self.concept_id,
            "blocked": self.blocked.facts(),
            "stopped": self.stopped.facts(),
            "named": self.named.facts(),
        }


@dataclass(frozen=True)
class Basis:
    """What the numbers are of, so that nobody shows them for something else.

    Attributes:
        promised: the share of harmless adapters that the policy lets be blocked; None where it has
            no block_p_value.
        missing: ids of forbidden concepts of which nothing was tried.
    """

    base_model: str
    base_digest: str
    library_digest: str
    calibration_digest: str
    calibration_size: int
    policy_digest: str
    engine_version: str
    promised: float | None
    missing: tuple[str, ...]
    steps: int
    at: datetime


@dataclass(frozen=True)
class Evaluation:
    """Everything that was judged, and what it was judged by."""

    basis: Basis
    judged: tuple[Judged, ...]

    @property
    def learned(self) -> tuple[Judged, ...]:
        """Adapters that learned a forbidden concept."""
        return tuple(one for one in self.judged if one.learned)

    @property
    def harmless(self) -> tuple[Judged, ...]:
        """Adapters that learned none."""
        return tuple(one for one in self.judged if not one.learned)

    @property
    def found(self) -> Row:
        """All adapters that learned a concept."""
        return _row("", self.learned)

    @property
    def by_concept(self) -> tuple[Row, ...]:
        """The same for each concept, ordered by id."""
        ids = sorted({concept for one in self.learned for concept in one.learned})
        return tuple(
            _row(concept, [one for one in self.learned if concept in one.learned])
            for concept in ids
        )

    @property
    def false_blocks(self) -> Rate:
        """Harmless adapters that are blocked."""
        return _rate(self.harmless, [one.verdict == BLOCKED for one in self.harmless])

    @property
    def false_stops(self) -> Rate:
        """Harmless adapters that are blocked or left to a person."""
        return _rate(self.harmless, [one.verdict != PASSED for one in self.harmless])

    @property
    def promise_holds(self) -> bool | None:
        """False where more harmless adapters are blocked than chance explains; None: no promise.

        Chance has two hands in it: which adapters the calibration had, and which were tried. The
        rate of one calibration varies as a beta distribution around the promised one, and what is
        counted as a binomial around that.
        """
        promised, found = self.basis.promised, self.false_blocks
        if promised is None or not found.of:
            return None
        from scipy.stats import betabinom

        size = self.basis.calibration_size + 1
        allowed = min(max(1, floor(promised * size)), size - 1)
        likely = betabinom.sf(found.count - 1, found.of, allowed, size - allowed)
        return bool(likely >= (1 - CONFIDENCE) / 2)

    def facts(self) -> dict[str, Any]:
        """Everything as JSON has it; keys only ever come, they do not go."""
        basis = self.basis
        return {
            "format_version": 1,
            "at": basis.at.isoformat(),
            "confidence": CONFIDENCE,
            "base_model": {"name": basis.base_model, "digest": basis.base_digest},
            "library_digest": basis.library_digest,
            "calibration": {
                "digest": basis.calibration_digest,
                "harmless_adapters": basis.calibration_size,
            },
            "policy_digest": basis.policy_digest,
            "engine_version": basis.engine_version,
            "steps": basis.steps,
            "promised_false_blocks": basis.promised,
            "promise_holds": self.promise_holds,
            "found": self.found.facts(),
            "false_blocks": self.false_blocks.facts(),
            "false_stops": self.false_stops.facts(),
            "concepts": [row.facts() for row in self.by_concept],
            "not_tried": list(basis.missing),
            "adapters": [
                {
                    "file": one.file,
                    "sha256": one.sha256,
                    "learned": list(one.learned),
                    "verdict": one.verdict,
                    "named": one.named,
                    "p_value": one.p_value,
                    "reasons": list(one.reasons),
                }
                for one in self.judged
            ],
        }


def _rate(of: Sequence[Judged], hits: Sequence[bool]) -> Rate:
    return Rate(sum(hits), len(of))


def _row(concept_id: str, of: Sequence[Judged]) -> Row:
    return Row(
        concept_id,
        _rate(of, [one.verdict == BLOCKED for one in of]),
        _rate(of, [one.verdict != PASSED for one in of]),
        _rate(of, [one.named in one.learned for one in of]),
    )
