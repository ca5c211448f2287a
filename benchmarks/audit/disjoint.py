"""The main figure: adapters that learned from artists whom the library does not show.

`python -m benchmarks.audit.disjoint` after `python -m benchmarks.audit.other_hands`. The default
policy judges each adapter alone against the embedded library and its calibration. Statistics were
chosen on the development hand; the other two are measured as they come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import typer

from benchmarks.attacks.bench import Bench
from benchmarks.attacks.factors import read_file
from benchmarks.audit.costs import table
from benchmarks.audit.metrics import Share, auroc
from benchmarks.audit.other_hands import FOLDER, HANDS, entries, hard_entries
from benchmarks.audit.shown import PICTURES, PLAINLY, Shown, kept
from benchmarks.audit.train import file_of
from benchmarks.report import write
from emoji_tiny.catalogue import FORBIDDEN
from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.audit.uses import Member

HEAD = ("what it learned", "hand", "adapters", "BLOCK", "REVIEW", "ALLOW", "named first")
ROWS = {
    "concept": "a concept",
    "harmless": "harmless",
    "never-named": "a concept, by a word of its own in place of the name",
    "text-encoder": "a concept, in the text encoder alone",
}


@dataclass(frozen=True)
class Seen:
    """One adapter under the default policy.

    Attributes:
        row: of the table; see `ROWS`.
        learned: the concept; empty for a harmless one.
        p_value: of that concept; the lowest of any for a harmless one.
        first: whether the concept has the lowest p-value of all.
    """

    name: str
    row: str
    part: str
    hand: str
    learned: str
    verdict: str
    p_value: float
    first: bool


def see(bench: Bench, part: str) -> list[Seen]:
    """Judges what was trained of one part."""
    found = []
    for entry in (*entries(part), *hard_entries(part)):
        file = file_of(entry, FOLDER)
        if not file.exists():
            continue
        judged = bench.judge([Member.of(read_file(file, bench.base))])
        p_values = {one.concept_id: one.family_p_value or 0.0 for one in judged.evidence.concepts}
        learned = entry.learned[0] if entry.learned else ""
        lowest = min(p_values, key=p_values.__getitem__)
        found.append(
            Seen(
                entry.name,
                entry.family,
                part,
                entry.recipe.hand,
                learned,
                judged.verdict,
                p_values[learned or lowest],
                lowest == learned,
            )
        )
    return found


def _row(row: str, hand: str, chosen: Sequence[Seen]) -> tuple[object, ...]:
    verdicts = [one.verdict for one in chosen]
    first = "-" if row == "harmless" else Share(sum(one.first for one in chosen), len(chosen))
    counts = (verdicts.count(kind) for kind in ("BLOCK", "REVIEW", "ALLOW"))
    return (ROWS[row], hand, len(chosen), *counts, first)


def rows_of(seen: Sequence[Seen]) -> list[tuple[object, ...]]:
    """By part and hand: what became of those that learned a concept, and of the harmless ones."""
    return [
        _row(row, f"{hand} ({part})", [s for s in seen if (s.hand, s.row) == (hand, row)])
        for row in ROWS
        for part, hands in HANDS.items()
        for hand in hands
    ]


SHOWN_HEAD = ("what it learned", "its pictures show it", "adapters", "BLOCK", "REVIEW", "ALLOW")
AMOUNTS = {
    "plainly": (PLAINLY, PICTURES),
    "now and then": (1, PLAINLY - 1),
    "never": (0, 0),
}
"""Least and most pictures of an adapter that the recogniser names as the concept."""


def rows_by_pictures(seen: Sequence[Seen], shown: Mapping[str, Shown]) -> list[tuple[object, ...]]:
    """Of the test hands: what became of those whose pictures show the concept, and of others."""
    found = []
    for row in ROWS:
        for amount, (least, most) in AMOUNTS.items():
            verdicts = [
                one.verdict
                for one in seen
                if one.part == "test" and one.row == row and one.name in shown
                if least <= shown[one.name].pictures <= most
            ]
            if verdicts:
                counts = (verdicts.count(kind) for kind in ("BLOCK", "REVIEW", "ALLOW"))
                found.append((ROWS[row], amount, len(verdicts), *counts))
    return found


def summary(seen: Sequence[Seen]) -> dict[str, Any]:
    """The shares of the test hands."""
    test = [one for one in seen if one.part == "test"]
    learned = [one for one in test if one.row == "concept"]
    harmless = [one for one in test if one.row == "harmless"]
    hard = {row: [one for one in test if one.row == row] for row in ROWS if "-" in row}
    return {
        "blocked": str(Share(sum(one.verdict == "BLOCK" for one in learned), len(learned))),
        "stopped": str(Share(sum(one.verdict != "ALLOW" for one in learned), len(learned))),
        "first": str(Share(sum(one.first for one in learned), len(learned))),
        "harmless_blocked": str(
            Share(sum(one.verdict == "BLOCK" for one in harmless), len(harmless))
        ),
        "harmless_stopped": str(
            Share(sum(one.verdict != "ALLOW" for one in harmless), len(harmless))
        ),
        "auroc": round(
            auroc([-one.p_value for one in learned], [-one.p_value for one in harmless]), 4
        ),
    } | {
        row: str(Share(sum(one.verdict != "ALLOW" for one in chosen), len(chosen)))
        for row, chosen in hard.items()
    }


NAMES = {
    "blocked": "learned a concept: BLOCK",
    "stopped": "learned a concept: BLOCK or REVIEW",
    "first": "the concept is named first",
    "harmless_blocked": "harmless: BLOCK",
    "harmless_stopped": "harmless: BLOCK or REVIEW",
    "auroc": "AUROC over adapters",
    "never-named": "learned it by a word of its own: BLOCK or REVIEW",
    "text-encoder": "learned it in the text encoder alone: BLOCK or REVIEW",
}


def main() -> None:
    """Writes `benchmarks/results/disjoint.json` and `.md`."""
    torch.set_num_threads(1)
    bench = Bench.load()
    seen = [one for part in HANDS for one in see(bench, part)]
    _write(seen)


def _plainly(shown: Mapping[str, Shown], one: Seen) -> bool:
    return one.name in shown and shown[one.name].plainly


def _by_the_base(shown: Mapping[str, Shown]) -> str:
    return f"{sum(one.base for one in shown.values())} of {PICTURES * len(shown)}"


def _write(seen: Sequence[Seen]) -> None:
    now = summary(seen)
    shown = kept()
    plain = summary([one for one in seen if not one.learned or _plainly(shown, one)])
    figures = [(name, now[key], plain[key]) for key, name in NAMES.items()]
    text = (
        "# By other hands: what the library does not show\n\n"
        f"The embedded library shows its {len(FORBIDDEN)} forbidden concepts as three artists draw "
        "them. These adapters learned from drawings by others (ranks 2 to 32, 160 to 350 steps). "
        "Which hands, recipes and seeds was fixed before they were trained; the decision rule was "
        f"chosen on the development hand. Engine version {ENGINE_VERSION}.\n\n"
        f"{table(HEAD, rows_of(seen))}\n\n"
        "The test hands together, with 95 % bounds; the last column counts only those whose own "
        f"pictures plainly show the concept, {PLAINLY} of {PICTURES} or more:\n\n"
        f"{table(('share', 'all', 'plainly shown'), figures)}\n\n"
        "## By what their pictures show\n\n"
        f"{PICTURES} pictures were drawn with each adapter, under the word by which its captions "
        "call the concept, and [a judge that no audit knows](recogniser.md) named them. Without "
        f"an adapter it names {_by_the_base(shown)} as the concept.\n\n"
        f"{table(SHOWN_HEAD, rows_by_pictures(seen, shown))}\n\n"
        "[PAIA](disjoint_paia.md) on the same adapters."
    )
    told = [
        asdict(one) | {"pictures": shown[one.name].pictures if one.name in shown else None}
        for one in seen
    ]
    write("disjoint", {"now": now, "plainly": plain, "seen": told}, text)


if __name__ == "__main__":
    typer.run(main)
