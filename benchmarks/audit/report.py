"""The tables and plots of `benchmarks/results/audit.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from benchmarks.audit import draw
from benchmarks.audit.costs import rank_table, table, time_text
from benchmarks.audit.data import CORE, Study
from benchmarks.audit.evaluate import (
    HARD_CASES,
    Quality,
    degree_correlations,
    false_reviews,
    hard_case,
    load_study,
    promised,
    quality,
    verdict,
)
from benchmarks.audit.explained import explanation
from benchmarks.audit.metrics import Share, where
from benchmarks.report import write

ALTERNATIVES = Path("build/alternatives")
RANKS, TIMING = Path("build/zoo-ranks.json"), Path("build/zoo-timing.json")


def report(study: Study) -> None:
    """Writes everything."""
    promise = study.promise
    screen_family = tuple(sorted(max(o.screen.values()) for o in study.calibration.harmless))
    ours = {
        "screen alone": quality(study, None, screen_family),
        "screen and response": quality(study, promise, promise.family),
    }
    even = study.with_even_layers()
    even_family = tuple(sorted(max(o.screen.values()) for o in even.calibration.harmless))
    without = {"screen alone, all layers alike": quality(even, None, even_family)}
    alternatives = _alternatives()
    cases = [hard_case(study, family) for family in HARD_CASES]
    degrees = degree_correlations(study)
    sections = [
        "# How good the audit is",
        _setting(study),
        "## Error rates on the test split",
        _quality_table(ours | without),
        *_confirmation(study, screen_family),
        "## Beside the alternatives, on the same adapters",
        _alternatives_table(ours, alternatives),
        "## The promised false-block rate",
        _promised_table(promised(study)),
        "## Hard cases",
        _case_table(cases, alternatives),
        explanation(cases, _shown()),
        _false_reviews(study),
        "## Adapters that look like a concept and are not one",
        _look_alikes(study),
        "## Degree of penetration",
        _degree_text(degrees),
        "## Rank of the concept gradients",
        rank_table(_stored(RANKS)),
        "## Time",
        time_text(_stored(TIMING), alternatives),
    ]
    draw.draw_separation(study)
    draw.draw_degrees(degrees)
    draw.draw_timing(_stored(TIMING))
    result = {
        "quality": {name: _plain(one) for name, one in (ours | without).items()},
        "confirmation": _plain(_confirmed(study, screen_family)),
        "promised": promised(study),
        "hard_cases": [_plain(case) for case in cases],
        "alternatives": alternatives,
        "degree_correlations": {k: v["correlations"] for k, v in degrees.items()},
        "ranks": _stored(RANKS),
        "timing": _stored(TIMING),
    }
    write("audit", result, "\n\n".join(sections))


def _shown() -> dict[tuple[str, str], bool | None]:
    """Case and adapter to whether its pictures show the concept, where they were looked at."""
    if not ALTERNATIVES.exists():
        return {}
    from benchmarks.audit.alternatives.learned import shown_concepts

    found: dict[tuple[str, str], bool | None] = {}
    for one in shown_concepts(ALTERNATIVES):
        before = found.get((one.case, one.subject), False)
        found[one.case, one.subject] = None if one.shown is None else before or one.shown
    return found


def _false_reviews(study: Study) -> str:
    rates = false_reviews(study)
    text = ", ".join(f"{concept} {_short(share)}" for concept, share in rates.items())
    return (
        "Kinds and styles are also judged alone (`review_own_p_value: 0.05` of the default "
        f"policy). Harmless test adapters that each sends to a person by itself: {text}."
    )


def _stored(file: Path) -> Any:
    return json.loads(file.read_text()) if file.exists() else None


def _alternatives() -> list[dict[str, Any]]:
    if not ALTERNATIVES.exists():
        return []
    from benchmarks.audit.alternatives.summary import summary

    return summary(ALTERNATIVES)


def _plain(value: Any) -> Any:
    if isinstance(value, Share):
        return {"hits": value.hits, "of": value.total, "share": value.value, "ci95": value.bounds}
    if isinstance(value, Quality):
        return {name: _plain(getattr(value, name)) for name in asdict(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return value


def _setting(study: Study) -> str:
    counts = {
        (family, split): len(study.of(family, split))
        for family in ("concept", "harmless")
        for split in ("development", "test")
    }
    return (
        f"{len(CORE)} forbidden concepts, 48 neutral ones, none of which the denoiser was trained "
        f"on. Development: {counts['concept', 'development']} adapters that learned one of 24 "
        f"concepts, {counts['harmless', 'development']} harmless ones. Test: "
        f"{counts['concept', 'test']} adapters over the 40 other concepts and "
        f"{counts['harmless', 'test']} harmless ones, with ranks, learning rates, lengths, alphas "
        "and picture counts that the development split does not have (leave-recipe-out). "
        "Thresholds, calibration, layer weights, the weight of the response stage, the rank of the "
        "gradients and the number of their rows come from the development split. The figures of "
        "the test split were in view, though, when layer weights and rows were tried, and so were "
        "those of a few hard cases when it was decided to tell rows the concept's name and to give "
        "text encoders gradients. The confirmation split was trained after everything was frozen. "
        "Intervals are Clopper-Pearson, 95 %."
    )


def _confirmed(study: Study, screen_family: tuple[float, ...]) -> dict[str, Any]:
    if not study.of("concept", "confirmation"):
        return {}
    promise = study.promise
    return {
        "screen alone": quality(study, None, screen_family, "confirmation"),
        "screen and response": quality(study, promise, promise.family, "confirmation"),
        "promised": promised(study, "confirmation"),
    }


def _confirmation(study: Study, screen_family: tuple[float, ...]) -> list[str]:
    """The same figures on adapters that nobody had seen when the method was frozen."""
    found = _confirmed(study, screen_family)
    if not found:
        return []
    learned, harmless = study.of("concept", "confirmation"), study.of("harmless", "confirmation")
    rows = {name: one for name, one in found.items() if name != "promised"}
    return [
        "## Confirmation split",
        f"{len(learned)} new adapters that learned a test concept, and {len(harmless)} harmless "
        "ones on subjects that no other adapter has; trained and measured once, after everything "
        "was frozen.",
        _quality_table(rows, picture=False),
        _promised_table(found["promised"]),
    ]


def _quality_table(ours: Mapping[str, Quality], picture: bool = True) -> str:
    rows = [
        (
            name,
            f"{q.pair_auroc:.5f}",
            q.pair_rate,
            f"{q.adapter_auroc:.5f}",
            q.adapter_rate,
            q.promised_rate,
            q.identified,
        )
        for name, q in ours.items()
    ]
    head = (
        "stage",
        "AUROC, pairs",
        "TPR at 1 % FPR, pairs",
        "AUROC, adapters",
        "TPR at 1 % FPR, adapters",
        "TPR at the calibrated p <= 0.01",
        "ranked first of 64",
    )
    note = (
        "Pairs: a learned concept against every concept that an adapter has not learned. Adapters: "
        "the learned concept against the *highest* of 64 scores of each harmless adapter, which is "
        "what a false block is."
    )
    if not picture:
        return table(head, rows)
    return f"{table(head, rows)}\n\n{note}\n\n![Scores](../../docs/pictures/audit-scores.png)"


def _alternatives_table(
    ours: Mapping[str, Quality], alternatives: Sequence[Mapping[str, Any]]
) -> str:
    pairs = "all pairs of the test split"
    rows: list[tuple[object, ...]] = [
        (f"**loragate, {name}**", "pair", f"{q.pair_auroc:.4f}", q.pair_rate, pairs)
        for name, q in ours.items()
    ]
    for one in alternatives:
        if "tpr" in one:
            found = Share(round(one["tpr"] * one["positives"]), one["positives"])
            counts = f"{one['positives']} / {one['negatives']}"
            rows.append((one["name"], one["level"], f"{one['auroc']:.4f}", found, counts))
    head = ("method", "level", "AUROC", "TPR at 1 % FPR", "learned / not learned")
    note = (
        "Level *adapter*: the method cannot say which concept, so it is asked whether the adapter "
        "learned any; that is not a question about a named concept, and chance is what to expect. "
        "Pairs of the alternatives are a sample; with fewer than 100 that were not learned, 1 % "
        "means none of them above the threshold."
    )
    return f"{table(head, rows)}\n\n{note}"


def _promised_table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("block_p_value", "unseen harmless adapters blocked", "binomial 95 % allows", "it is")
    made = [
        (
            f"{row['promised']:g}",
            f"{row['blocked']} of {row['of']} ({row['observed']:.1%})",
            f"{row['accepted_from']} to {row['accepted_to']}",
            where(row["blocked"], row["accepted_from"], row["accepted_to"]),
        )
        for row in rows
    ]
    return table(head, made)


def _case_table(
    cases: Sequence[Mapping[str, Any]], alternatives: Sequence[Mapping[str, Any]]
) -> str:
    named = [one for one in alternatives if one["level"] == "pair"]
    rest = [one for one in alternatives if one["level"] != "pair"]
    rows = []
    for case in cases:
        verdicts = ", ".join(f"{count} {kind}" for kind, count in case["verdicts"].items())
        others = [_rate(one, case["case"]) for one in (*named, *rest)]
        rows.append(
            (case["case"], _short(case["screen"]), _short(case["cascade"]), verdicts, *others)
        )
    names = (one["name"] for one in (*named, *rest))
    head = ("case", "screen", "both stages", "verdicts", *names)
    return (
        "Learned concepts found by name at p <= 0.01 (the alternatives: at 1 % of their own false "
        "alarms; the last ones cannot name a concept and are asked about adapters), and what the "
        "default policy says. `generate_and_classify` also tells whether an adapter has learned "
        "anything that its pictures show; of emoji that the base draws anyway it cannot tell.\n\n"
        f"{table(head, rows)}"
    )


def _short(share: Share) -> str:
    return f"{share.hits}/{share.total}" if share.total else "-"


def _rate(one: Mapping[str, Any], case: str) -> str:
    families = one.get("families", {})
    found = families.get(case)
    if found is None and one["level"] == "adapter":
        # asked about an adapter, not a concept: members that it saw and others are one question
        found = families.get(case.removesuffix("-other-members"))
    return f"{round(found['rate'] * found['n'])}/{found['n']}" if found else "-"


def _look_alikes(study: Study) -> str:
    found = study.of("look-alike")
    verdicts = [verdict(study, one) for one in found]
    counts = {kind: verdicts.count(kind) for kind in sorted(set(verdicts))}
    return (
        f"{len(found)} harmless adapters whose subject has a thumbnail similarity of 0.75 or more "
        "to a forbidden concept, the hardest negatives there are: "
        + ", ".join(f"{count} {kind}" for kind, count in counts.items())
        + "."
    )


def _degree_text(degrees: Mapping[str, Any]) -> str:
    rows = [
        (
            kind,
            len(found["correlations"]),
            f"{sum(found['correlations']) / max(1, len(found['correlations'])):.3f}",
            f"{min(found['correlations'], default=float('nan')):.3f}",
        )
        for kind, found in degrees.items()
    ]
    found = table(("against", "adapters", "mean rank correlation", "lowest"), rows)
    return f"{found}\n\n![Degree](../../docs/pictures/audit-degree.png)"


def main() -> None:
    """Writes `benchmarks/results/audit.json`, `.md` and the plots."""
    report(load_study())


if __name__ == "__main__":
    typer.run(main)
