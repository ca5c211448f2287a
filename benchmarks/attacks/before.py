"""The rule before layers were weighed by effect: what it would have said of the same attack.

All layers voted alike, three quarters of harmless adapters ended at the screen, and the score of
both stages together was compared with that of harmless adapters; sets were judged as a sum alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.attacks.bench import Bench, Judged
from benchmarks.attacks.factors import read_file
from benchmarks.attacks.oracle import landed_scores
from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import Strength
from loragate_server.audit.conformal import conformal_p_value, quantile
from loragate_server.audit.screen import screen
from loragate_server.audit.witnesses import RESPONSE_SHARE

_ENDED = 0.75


@dataclass(frozen=True)
class Before:
    """The old rule, made from the harmless adapters of the zoo.

    Attributes:
        threshold: of the screen.
        family: rising, the highest final score of each harmless adapter.
    """

    bench: Bench
    threshold: float
    family: tuple[float, ...]

    @classmethod
    def of(cls, bench: Bench, harmless: Sequence[Path]) -> Before:
        """Screens every harmless adapter; responses are those that the calibration keeps."""
        made = bench.engine.materials.calibration
        assert made is not None
        kept = {one.sha256: one.response for one in made.harmless}
        scored = []
        for file in harmless:
            adapter = read_file(file, bench.base)
            scores = _screened(bench, [(adapter, Strength())])
            scored.append((scores, kept.get(adapter.sha256, {})))
        threshold = quantile(sorted(max(scores.values()) for scores, _ in scored), _ENDED)
        family = [
            max(
                _both(score, response.get(concept) if score >= threshold else None)
                for concept, score in scores.items()
            )
            for scores, response in scored
        ]
        return cls(bench, threshold, tuple(sorted(family)))

    def verdict(self, loaded: Sequence[tuple[Adapter, Strength]], now: Judged) -> str:
        """What it would have said; response scores are those that the audit measured now."""
        responses = {one.concept_id: one.response_score for one in now.evidence.concepts}
        p_value = 1.0
        for concept, score in _screened(self.bench, loaded).items():
            response = responses.get(concept) if score >= self.threshold else None
            final = _both(score, response)
            p_value = min(p_value, conformal_p_value(self.family, final))
        thresholds = self.bench.policy.defaults
        assert thresholds.block_p_value is not None
        assert thresholds.review_p_value is not None
        if p_value <= thresholds.block_p_value:
            return "BLOCK"
        return "REVIEW" if p_value <= thresholds.review_p_value else "ALLOW"


def _screened(bench: Bench, loaded: Sequence[tuple[Adapter, Strength]]) -> dict[str, float]:
    found = screen(bench.base, bench.gradients, loaded, "reference")
    return dict(zip(bench.concept_ids, landed_scores(found, bench).tolist(), strict=True))


def _both(screen: float, response: float | None) -> float:
    """The one score that there was, from which a low response took."""
    return screen if response is None else screen + RESPONSE_SHARE * (response - screen)
