"""What the measured zoo says: error rates, hard cases, degree, time.

`report` writes it down. The rule is calibrated on
the development split and applied unchanged to the test split, whose concepts, seeds and recipes it
has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scipy import stats

from benchmarks.audit.data import CORE, Measured, Study, read_measured
from benchmarks.audit.library import FOLDER as LIBRARY
from benchmarks.audit.metrics import Share, above, acceptance, auroc, threshold_at
from loragate_server.audit.conformal import conformal_p_value
from loragate_server.audit.promise import Promise
from loragate_server.concepts.library import ConceptLibrary

REVIEW, BLOCK = 0.05, 0.01
"""The p-values of the default policy."""

HARD_CASES = (
    "strength-0.3",
    "strength-2",
    "rescaled",
    "merged-with-one",
    "merged-with-three",
    "noise-added",
    "split-over-two",
    "text-encoder-only",
    "high-noise-only",
    "low-noise-only",
    "hidden-from-audit",
    "dora",
    "loha",
    "lokr",
    "locon",
    "adafactor",
    "sgd",
    "low-rate",
    "high-rate",
    "rank-1",
    "rank-64",
    "one-picture",
    "four-pictures",
    "group",
    "group-other-members",
    "style",
    "known-to-base",
    "two-concepts",
)


@dataclass(frozen=True)
class Quality:
    """How well one stage, or both, tell learned concepts from others on the test split.

    Attributes:
        pair_auroc: a learned concept against every concept that was not learned.
        pair_rate: learned concepts found where 1 % of all other pairs are.
        adapter_auroc: the learned concept's score against the highest of each harmless adapter.
        adapter_rate: learned concepts found where 1 % of harmless test adapters are.
        promised_rate: learned concepts found at the calibrated p-value of 1 %.
        identified: the learned concept has the highest score of all 64.
    """

    pair_auroc: float
    pair_rate: Share
    adapter_auroc: float
    adapter_rate: Share
    promised_rate: Share
    identified: Share


def quality(
    study: Study, promise: Promise | None, family: tuple[float, ...], split: str = "test"
) -> Quality:
    """Measures one rule; `family` has the highest value of each of the calibration's adapters."""
    learned, harmless = study.of("concept", split), study.of("harmless", split)
    hits = [one.score(one.learned[0], promise) for one in learned]
    others = [one.score(c, promise) for one in learned for c in CORE if c not in one.learned]
    others += [one.score(c, promise) for one in harmless for c in CORE]
    highest = [max(one.score(c, promise) for c in CORE) for one in harmless]
    named = [max(CORE, key=lambda c: one.score(c, promise)) == one.learned[0] for one in learned]
    return Quality(
        auroc(hits, others),
        above(hits, threshold_at(others, 0.01)),
        auroc(hits, highest),
        above(hits, threshold_at(highest, 0.01)),
        _at_p(hits, family, BLOCK),
        Share(sum(named), len(named)),
    )


def _at_p(scores: list[float], family: tuple[float, ...], rate: float) -> Share:
    return Share(sum(conformal_p_value(family, s) <= rate for s in scores), len(scores))


def promised(study: Study, split: str = "test") -> list[dict[str, Any]]:
    """Observed false blocks of unseen harmless adapters beside the promised rate."""
    harmless, promise = study.of("harmless", split), study.promise
    highest = [max(one.score(c, promise) for c in CORE) for one in harmless]
    rows = []
    for rate in (0.10, 0.05, 0.01):
        blocked = _at_p(highest, promise.family, rate)
        low, high = acceptance(len(harmless), rate)
        rows.append(
            {
                "promised": rate,
                "observed": blocked.value,
                "blocked": blocked.hits,
                "of": blocked.total,
                "accepted_from": low,
                "accepted_to": high,
                "holds": low <= blocked.hits <= high,
            }
        )
    return rows


def verdict(study: Study, one: Measured, asked: tuple[str, ...] = ()) -> str:
    """What the default policy says about a subject; `asked` are concepts beside the core ones."""
    if not one.understood:
        return "INCONCLUSIVE"
    promise, audited = study.promise, {*CORE, *asked}
    p_value = conformal_p_value(promise.family, max(one.score(c, promise) for c in audited))
    if p_value <= BLOCK:
        return "BLOCK"
    alone = any(study.own_p_value(c, one) <= REVIEW for c in asked if is_broad(c))
    return "REVIEW" if alone or p_value <= REVIEW else "ALLOW"


def is_broad(concept: str) -> bool:
    """Whether a concept is of a category that the default policy also judges alone."""
    return concept.startswith(("kind-", "group-", "style-"))


def false_reviews(study: Study) -> dict[str, Share]:
    """How often each broad concept alone sends a harmless test adapter to a person."""
    harmless = study.of("harmless", "test")
    broad = [concept for concept in harmless[0].screen if is_broad(concept)]
    return {
        concept: Share(
            sum(study.own_p_value(concept, one) <= REVIEW for one in harmless), len(harmless)
        )
        for concept in broad
    }


def subjects_of(study: Study, case: str) -> list[tuple[Measured, tuple[str, ...]]]:
    """The subjects of a hard case, each with the learned concepts that it is asked about."""
    if case in ("group", "group-other-members"):
        # learned members are one concept of the library, other members of the kind another
        prefix = "kind-" if case == "group" else "group-"
        return [
            (one, tuple(c for c in one.learned if c.startswith(prefix)))
            for one in study.of("group")
        ]
    return [(one, one.learned) for one in study.of(case)]


def hard_case(study: Study, case: str) -> dict[str, Any]:
    """Learned concepts found by name, and the verdicts, for one hard case."""
    promise, found = study.promise, subjects_of(study, case)
    pairs = [(one, concept) for one, concepts in found for concept in concepts]
    finals = [conformal_p_value(promise.family, one.score(c, promise)) for one, c in pairs]
    verdicts = [verdict(study, one, concepts) for one, concepts in found]
    screen_family = tuple(sorted(max(one.screen.values()) for one in study.calibration.harmless))
    return {
        "case": case,
        "adapters": len(found),
        "screen": _at_p([one.screen[c] for one, c in pairs], screen_family, BLOCK),
        "cascade": Share(sum(p <= BLOCK for p in finals), len(pairs)),
        "verdicts": {kind: verdicts.count(kind) for kind in sorted(set(verdicts))},
        "allowed": [
            one.name for (one, _), said in zip(found, verdicts, strict=True) if said == "ALLOW"
        ],
    }


def degree_correlations(study: Study) -> dict[str, Any]:
    """Spearman's rank correlation of the degree with training steps, and with strength."""
    found: dict[str, Any] = {}
    full = {one.name: one for one in study.of("concept", "test")}
    for kind, families, split in (
        ("steps, development", ("by-steps",), "development"),
        ("steps", ("by-steps",), "test"),
        ("strength", ("by-strength", "strength-0.3", "strength-2"), "test"),
    ):
        curves: dict[str, list[tuple[float, float]]] = {}
        for family in families:
            for one in study.of(family, split):
                stem, _, setting = one.name.rpartition("@")
                point = (float(setting.lstrip("x")), one.degree[one.learned[0]])
                curves.setdefault(stem, []).append(point)
        for stem, points in curves.items():
            if kind == "strength" and stem in full:
                points.append((1.0, full[stem].degree[full[stem].learned[0]]))
            points.sort()
        each = [float(stats.spearmanr(*zip(*p, strict=True)).statistic) for p in curves.values()]
        found[kind] = {"curves": curves, "correlations": each}
    return found


def load_study() -> Study:
    """The whole measured zoo."""
    ids = [concept.concept_id for concept in ConceptLibrary.open(LIBRARY).forbidden]
    return Study(tuple(read_measured(ids)))
