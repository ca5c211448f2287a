"""Targets T1 to T12: what was wanted and predicted before anything was measured.

There is no T11 any more: its kernel had no caller and was removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ahead", "met", "missed", "not measured"]


@dataclass(frozen=True)
class Target:
    """One target, or one half of a target that has two.

    Attributes:
        id: as in the tables.
        measure: what is measured.
        unit: of the value, "x" for ratios, "%" for shares of a limit.
        more_is_better: which way is good.
        must: what it has to reach.
        ahead: what would be better than what others publish; None where that is no number.
        predicted: where the numbers come from, before measuring.
    """

    id: str
    measure: str
    unit: str
    more_is_better: bool
    must: float
    ahead: float | None
    predicted: str

    def judge(self, value: float | None) -> Verdict:
        """How `value` stands to the target. A NaN meets nothing."""
        if value is None:
            return "not measured"
        if self.ahead is not None and self._reaches(value, self.ahead):
            return "ahead"
        return "met" if self._reaches(value, self.must) else "missed"

    def _reaches(self, value: float, wanted: float) -> bool:
        return value >= wanted if self.more_is_better else value <= wanted

    def wanted(self, level: float | None) -> str:
        """A level in words, as ">= 92 %"."""
        if level is None:
            return "–"
        return f"{'≥' if self.more_is_better else '≤'} {level:g} {self.unit}".rstrip()


def _more(name: str, measure: str, unit: str, must: float, ahead: float, predicted: str) -> Target:
    return Target(name, measure, unit, True, must, ahead, predicted)


def _less(
    name: str, measure: str, unit: str, must: float, ahead: float | None, predicted: str
) -> Target:
    return Target(name, measure, unit, False, must, ahead, predicted)


TARGETS = (
    _more(
        "T1",
        "pair_stats, 8 GB of pairs, of the read-only sum's rate",
        "%",
        92,
        97,
        "reads the same bytes in the same way; tables and partial sums add 0.05 %",
    ),
    _more(
        "T2",
        "the same in TB/s, on a part of 3.35 TB/s",
        "TB/s",
        2.8,
        3.05,
        "copies reach 3.0 on this part; reading alone a little more",
    ),
    _more("T3a", "layer mix of about 1 GB, of the read-only sum's rate", "%", 85, 93, "fold 5 µs"),
    _more("T3b", "layer mix of about 100 MB", "%", 65, 80, "fold and ramp 8 µs beside 32 µs"),
    _more("T4", "eager float32 over ours, mix, whole call", "x", 8, 12, "48 bytes over 4"),
    _more("T5a", "eager best over ours, mix", "x", 3.5, 4.5, "18 bytes over 4"),
    _more("T5b", "foreach over ours, mix", "x", 3, 3.5, "14 bytes over 4"),
    _more("T6a", "torch.compile over ours, one large layer", "x", 1.0, 1.1, "same bytes"),
    _more("T6b", "torch.compile over ours, mix", "x", 1.5, 3.0, "split reductions, many launches"),
    _more(
        "T7",
        "scalar float64 kernel over ours, per byte",
        "x",
        1.5,
        2.0,
        "an eighth of the load width",
    ),
    _less("T8a", "forward passes with capture over without", "%", 8, 3, "≈ 7 µs per layer"),
    _less("T8b", "extra memory of capture", "MiB", 256, 64, "partial sums only"),
    _less("T9a", "kernels compiled by launches after warm-up", "", 0, 0, "keys are enumerated"),
    _less("T9b", "warm-up with a warm disk cache", "s", 5, 1, "every kernel is loaded"),
    _less(
        "T10", "comparisons that differ in any bit", "", 0, None, "the chunk map fixes the order"
    ),
    _less("T12", "launches for 500 layers, all probes", "", 2, 2, "one per dtype, one fold"),
)

BY_ID = {target.id: target for target in TARGETS}


@dataclass(frozen=True)
class Outcome:
    """What a target came to.

    Attributes:
        id: of the target.
        value: in the target's unit; None where it could not be measured.
        detail: how, or why not.
    """

    id: str
    value: float | None
    detail: str = ""

    @property
    def verdict(self) -> Verdict:
        """How the value stands to the target."""
        return BY_ID[self.id].judge(self.value)


def table(outcomes: list[Outcome]) -> str:
    """All targets in Markdown, those without an outcome as not measured."""
    found = {outcome.id: outcome for outcome in outcomes}
    lines = [
        "| id | measure | must | ahead | predicted from | measured | verdict | how |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for target in TARGETS:
        outcome = found.get(target.id, Outcome(target.id, None))
        measured = "–" if outcome.value is None else f"{outcome.value:.3g} {target.unit}".rstrip()
        cells = (
            target.id,
            target.measure,
            target.wanted(target.must),
            target.wanted(target.ahead),
            target.predicted,
            measured,
            outcome.verdict,
            outcome.detail.replace("|", "/"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
