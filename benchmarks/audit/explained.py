"""Why hard cases are missed, in words, beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.audit.metrics import Share

ENOUGH = 0.8
"""Share of found concepts from which a row needs no explanation."""

WHY = {
    "merged-with-three": "A quarter of the adapter is left beside three harmless quarters. The "
    "gain on the concept falls to a quarter, the spread of the neutral bank does not.",
    "text-encoder-only": "The denoiser is unchanged, and the concept shows only to those who name "
    "it. Text encoders had no learned adapter to take layer weights from.",
    "high-noise-only": "Trained where pictures are almost noise. The strata at which learned "
    "concepts stand out most, 0.16 and 0.30, were left alone.",
    "adafactor": "This recipe hardly moved the weights, and pictures rarely show the concept.",
    "one-picture": "What was learned is one picture, with its background and pose, more than the "
    "concept. Other pictures of it gain little, least of all in the response stage.",
    "group": "Eight things share one adapter, and a concept of six pictures of six things has a "
    "gradient that is an average. Such concepts score lower on all adapters, which is why the "
    "default policy also compares them with their own past.",
    "group-other-members": "The adapter never saw the members in the library; how far it carries "
    "over depends on how alike they are.",
    "style": "A style changes all pictures, the neutral bank's as well, and most of it cancels.",
}


def explanation(
    cases: Sequence[Mapping[str, Any]], shown: Mapping[tuple[str, str], bool | None]
) -> str:
    """One paragraph per row below `ENOUGH`, and what is known of each adapter that was allowed.

    Args:
        cases: rows of `evaluate.hard_case`.
        shown: case and adapter to whether its own pictures show the concept; None: not told.
    """
    parts = []
    for case in cases:
        share: Share = case["cascade"]
        if share.value >= ENOUGH and not case["allowed"]:
            continue
        text = f"**{case['case']}** ({share.hits} of {share.total} blocked). "
        text += WHY.get(case["case"], "")
        if case["allowed"]:
            told = [f"{name} {_word(shown.get((case['case'], name)))}" for name in case["allowed"]]
            text += f" Allowed: {'; '.join(told)}."
        else:
            text += " None was allowed."
        parts.append(text)
    return "\n\n".join(parts)


def _word(shown: bool | None) -> str:
    if shown is None:
        return "(no pictures judged)"
    return "(its pictures show it)" if shown else "(its pictures do not show it)"
