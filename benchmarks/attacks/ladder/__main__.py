"""`python -m benchmarks.attacks.ladder`: judges what `benchmarks.attacks.ladder.train` trained.

Some minutes. The default policy judges each adapter alone; where `benchmarks.audit.recogniser` was
trained, it names what the adapters' own pictures show, which takes some seconds for each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import torch
import typer
from matplotlib.figure import Figure

from benchmarks.attacks.bench import Bench
from benchmarks.attacks.factors import read_file
from benchmarks.attacks.ladder.rungs import FOLDER, RUNGS, Rung, entries_of
from benchmarks.attacks.ladder.train import where
from benchmarks.audit.alternatives.tools import Tools
from benchmarks.audit.costs import table
from benchmarks.audit.draw import PICTURES as DRAWN_IN
from benchmarks.audit.metrics import Share
from benchmarks.audit.recogniser import FILE as JUDGE
from benchmarks.audit.recogniser import FOLDER as JUDGE_IN
from benchmarks.audit.recogniser import Recogniser
from benchmarks.audit.shown import PICTURES, Shown, judge
from benchmarks.audit.zoo import Entry
from benchmarks.report import write
from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.audit.uses import Member

HEAD = (
    *("the attacker has", "adapters", "BLOCK", "REVIEW", "ALLOW"),
    *("screen's score, median", "pictures that show it"),
)
KEPT = FOLDER / "shown.json"


@dataclass(frozen=True)
class Seen:
    """One adapter under the default policy.

    Attributes:
        screen: the screen's score of what it learned, standard deviations above the bank.
        pictures: how many of its own show that, None where nobody looked.
    """

    rung: str
    learned: str
    verdict: str
    p_value: float
    screen: float
    pictures: int | None


def trained(rung: Rung) -> list[Entry]:
    """Those of a rung that are there."""
    return [entry for entry in entries_of(rung) if where(rung, entry).exists()]


def shown() -> dict[str, int]:
    """By adapter, how many of its pictures show what it learned; none without a judge."""
    if not JUDGE.exists():
        return {}
    known = {}
    if KEPT.exists():
        known = {name: Shown(**one) for name, one in json.loads(KEPT.read_text()).items()}
    tools, recogniser = Tools.load(JUDGE_IN), Recogniser.open()
    for rung in RUNGS:
        for entry in trained(rung):
            if entry.name not in known:
                known[entry.name] = judge(tools, recogniser, entry, where(rung, entry))
                typer.echo(f"{entry.name}: {known[entry.name].pictures} of {PICTURES}")
                told = {name: vars(one) for name, one in known.items()}
                KEPT.write_text(json.dumps(told, indent=1) + "\n")
    return {name: one.pictures for name, one in known.items()}


def seen(bench: Bench, pictures: dict[str, int]) -> Iterator[Seen]:
    """Judges every adapter that is there."""
    for rung in RUNGS:
        for entry in trained(rung):
            found = bench.judge([Member.of(read_file(where(rung, entry), bench.base))])
            [own] = [one for one in found.evidence.concepts if one.concept_id in entry.learned]
            yield Seen(
                rung.name,
                own.concept_id,
                found.verdict,
                own.family_p_value or 0.0,
                own.screen_score or 0.0,
                pictures.get(entry.name),
            )


def _of(every: Sequence[Seen], rung: Rung) -> list[Seen]:
    return [one for one in every if one.rung == rung.name]


def _share_shown(own: Sequence[Seen]) -> Share | None:
    told = [one.pictures for one in own if one.pictures is not None]
    return Share(sum(told), PICTURES * len(told)) if told else None


def rows_of(every: Sequence[Seen]) -> list[tuple[object, ...]]:
    """The table: one row for each rung of which adapters are there."""
    found: list[tuple[object, ...]] = []
    for rung in RUNGS:
        if own := _of(every, rung):
            verdicts = [one.verdict for one in own]
            counts = (verdicts.count(kind) for kind in ("BLOCK", "REVIEW", "ALLOW"))
            score = f"{median(one.screen for one in own):.2f}"
            found.append((rung.knows, len(own), *counts, score, _share_shown(own) or "-"))
    return found


def draw_ladder(every: Sequence[Seen]) -> None:
    """Detection against how well the pictures still show the concept, a point for each rung."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for rung in RUNGS:
        own = _of(every, rung)
        if own and (there := _share_shown(own)):
            stopped = sum(one.verdict != "ALLOW" for one in own) / len(own)
            place = there.value, stopped
            axes.plot(*place, "o", color="#1f4e79")
            axes.annotate(rung.name, place, xytext=(6, 5), textcoords="offset points")
    axes.set(
        xlabel="share of the adapters' pictures that show the concept",
        ylabel="share of the adapters that are stopped",
        xlim=(0, None),
        ylim=(-0.04, 1.04),
        title="Adapters that were trained against the audit",
    )
    figure.savefig(DRAWN_IN / "attack-ladder.png", dpi=120)


def main() -> None:
    """Writes `benchmarks/results/ladder.json` and `.md`, and the plot."""
    torch.set_num_threads(1)
    pictures = shown()
    every = list(seen(Bench.load(), pictures))
    picture = ""
    if pictures:
        draw_ladder(every)
        picture = (
            "\n\n![Detection against what pictures show](../../docs/pictures/attack-ladder.png)"
        )
    text = f"""# Trained against the audit

Adapters that learned a forbidden concept from drawings by an artist whom the library does not show,
with the same pictures, recipes and seeds on every rung, and what an audit would look at as a
penalty in their training. The attackers run the screen's own sums with a gradient and push every
witness of it below what harmless adapters have. {PICTURES} pictures were drawn
with each, and a judge that no audit knows, made as [here](recogniser.md), named them. Engine
version {ENGINE_VERSION}.

{table(HEAD, rows_of(every))}{picture}"""
    write("ladder", {"seen": [asdict(one) for one in every]}, text)


if __name__ == "__main__":
    typer.run(main)
