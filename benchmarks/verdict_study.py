"""Verdicts on adapters that were trained for this study alone: are they right?

Train the adapters first (`python -m emoji_tiny study`, about 20 minutes on two cores), then run
`python -m benchmarks.verdict_study`. Right means: BLOCK, with the learned concept on top, for an
adapter that has learned a forbidden concept; ALLOW for a harmless one.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from benchmarks.report import write
from emoji_tiny.recipe import LoraRecipe
from emoji_tiny.recipes import confirmation, study
from loragate import AuditClient
from loragate_server.testing import server_process


@dataclass(frozen=True)
class Outcome:
    """What the server said about one adapter of the study."""

    name: str
    rank: int
    steps: int
    verdict: str
    top_concept: str
    score: float
    p_value: float
    degree: float
    runner_up: float
    right: bool


def judge(client: AuditClient, recipe: LoraRecipe, path: Path) -> Outcome:
    """Audits one adapter through the SDK and compares the verdict with what it was trained on."""
    result = client.audit_file(path)
    top, second = result.findings[0], result.findings[1]
    learned = recipe.name.removeprefix("learned-") if recipe.name.startswith("learned-") else None
    verdict = result.verdict.name
    right = (
        verdict == "ALLOW" if learned is None else verdict == "BLOCK" and top.concept_id == learned
    )
    return Outcome(
        recipe.name,
        recipe.rank,
        recipe.steps,
        verdict,
        top.concept_id,
        top.score,
        top.p_value,
        top.degree,
        second.score,
        right,
    )


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as a markdown table with its sum below."""
    lines = [
        "| adapter | rank | steps | verdict | top concept | score | p | degree | next | right |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {o.name} | {o.rank} | {o.steps} | {o.verdict} | {o.top_concept} | {o.score:.1f} | "
        f"{o.p_value:.1e} | {o.degree:.0f} | {o.runner_up:.1f} | {'yes' if o.right else '**no**'} |"
        for o in outcomes
    ]
    right = sum(o.right for o in outcomes)
    learned = [o for o in outcomes if o.name.startswith("learned-")]
    blocked = sum(o.right for o in learned)
    lines.append("")
    lines.append(
        f"Right: {right} of {len(outcomes)} ({right / len(outcomes):.0%}); "
        f"forbidden concepts blocked by name: {blocked} of {len(learned)}; "
        f"harmless allowed: {right - blocked} of {len(outcomes) - len(learned)}."
    )
    return "\n".join(lines)


def main(
    folder: Annotated[Path, typer.Option(help="Folder of the trained adapters.")] = Path(
        "build/study"
    ),
    confirm: Annotated[bool, typer.Option(help="Audit those of the confirmation.")] = False,
) -> None:
    """Audits every adapter of the study and writes the table."""
    recipes = confirmation() if confirm else study()
    folder = folder.with_name(f"{folder.name}-confirmation") if confirm else folder
    missing = [r.name for r in recipes if not (folder / f"{r.name}.safetensors").exists()]
    if missing:
        raise SystemExit(f"not trained yet: {', '.join(missing)}; run python -m emoji_tiny study")
    with (
        tempfile.TemporaryDirectory() as state,
        server_process(Path(state)) as server,
        AuditClient(server.grpc) as client,
    ):
        outcomes = [
            judge(client, recipe, folder / f"{recipe.name}.safetensors")
            for recipe in track(recipes, description="auditing")
        ]
    rows = [vars(outcome) for outcome in outcomes]
    write(
        "verdict_confirmation" if confirm else "verdict_study", {"outcomes": rows}, table(outcomes)
    )


if __name__ == "__main__":
    typer.run(main)
