"""How long the screen and a whole audit take, and how the time grows.

`python -m benchmarks.audit.timing` after `train`, on a machine that does nothing else.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.audit.alternatives.generate import GenerateAndClassify
from benchmarks.audit.alternatives.tools import Tools, concept_ids
from benchmarks.audit.derive import Subject, plain_subjects
from benchmarks.audit.measure import Workbench, workbench
from loragate_kernels.lora_response import LayerDirections
from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.adapter.algebra import LowRank
from loragate_server.adapter.delta import WeightDelta
from loragate_server.adapter.reference import Strength
from loragate_server.audit.effects import key_of
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.screen import screen
from loragate_server.audit.stages import Screened
from loragate_server.audit.uses import Member
from loragate_server.audit.weights import Scales
from loragate_server.concepts.gradients import ConceptGradients
from loragate_server.progress import Leash

FILE = Path("build/zoo-timing.json")
REPEATS = 25


def median_ms(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median of several runs, after two that do not count."""
    spent = []
    for turn in range(repeats + 2):
        began = time.perf_counter()
        work()
        if turn >= 2:
            spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent)


def with_concepts(gradients: ConceptGradients, forbidden: int) -> ConceptGradients:
    """The same bank and fewer forbidden concepts."""
    bank = list(range(gradients.forbidden_count, len(gradients.concepts)))
    kept = [*range(forbidden), *bank]
    strata, rank = len(gradients.strata), gradients.plan.rank
    rows = torch.tensor(kept)[:, None] * strata + torch.arange(strata)
    lines = (rows.flatten()[:, None] * rank + torch.arange(rank)).flatten()
    layers = {}
    for ref, layer in gradients.layers.items():
        layers[ref] = LayerDirections.low_rank(
            layer.left[lines].contiguous(), layer.right[lines].contiguous(), (rank,) * rows.numel()
        )
    return replace(
        gradients,
        concepts=tuple(gradients.concepts[index] for index in kept),
        norms={ref: norm[rows.flatten()] for ref, norm in gradients.norms.items()},
        layers=layers,
    )


def random_adapter(template: Adapter, rank: int) -> Adapter:
    """Random factors of this rank on the same layers."""
    deltas: dict[ModuleRef, WeightDelta] = {}
    for ref, delta in template.deltas.items():
        assert isinstance(delta, LowRank)
        down = torch.randn(rank, delta.down.shape[1]) * 0.05
        deltas[ref] = LowRank(down, torch.randn(delta.up.shape[0], rank) * 0.05, 1.0)
    return replace(template, deltas=deltas)


def screen_ms(bench: Workbench, gradients: ConceptGradients, adapters: Sequence[Adapter]) -> float:
    """All adapters, each screened alone; milliseconds for all."""
    scales = Scales(effects=dict.fromkeys(map(key_of, gradients.layers), 1.0))

    def work() -> None:
        for adapter in adapters:
            found = screen(bench.base, gradients, [(adapter, Strength())], "reference")
            Screened.of(found, gradients, range(gradients.forbidden_count), scales)

    return median_ms(work, max(5, REPEATS // len(adapters)))


def generate_ms(subject: Subject) -> float:
    """20 pictures for one concept, drawn and classified; the median over three concepts."""
    tools = Tools.load()
    judge = GenerateAndClassify(tools)
    score = judge.prepare(subject)
    spent = []
    for concept in concept_ids()[:3]:
        began = time.perf_counter()
        score(concept)
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent)


def main(
    screen_only: Annotated[bool, typer.Option(help="Only the screen of 64 concepts.")] = False,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 2,
) -> None:
    """Writes `build/zoo-timing.json`."""
    torch.set_num_threads(threads)
    bench = workbench()
    named = with_concepts(bench.gradients, 64)
    harmless = [s for s in plain_subjects() if (s.family, s.split) == ("harmless", "test")]
    adapters = [subject.read(bench.base)[0][0] for subject in harmless[:16]]
    rank_8 = random_adapter(adapters[0], 8)
    if screen_only:
        typer.echo(f"screen of 64 concepts, {threads} threads: {screen_ms(bench, named, [rank_8])}")
        return
    engine = AuditEngine(bench.base, bench.materials)
    result = {
        "screen_64_ms": screen_ms(bench, named, [rank_8]),
        "by_concepts": {
            count: screen_ms(bench, with_concepts(bench.gradients, count), [rank_8])
            for count in (1, 8, 16, 32, 48, 64, 79)
        },
        "by_rank": {
            rank: screen_ms(bench, named, [random_adapter(adapters[0], rank)])
            for rank in (1, 2, 4, 8, 16, 32, 64)
        },
        "by_adapters": {
            count: screen_ms(bench, named, adapters[:count]) for count in (1, 2, 4, 8, 16)
        },
        "both_stages_ms": median_ms(
            lambda: engine.audit([Member.of(adapters[0], Strength())], Leash(), bench.ids[:3]),
            5,
        ),
        "generate_one_concept_ms": generate_ms(harmless[0]),
    }
    FILE.write_text(json.dumps(result, indent=1) + "\n")
    typer.echo(json.dumps(result, indent=1))


if __name__ == "__main__":
    typer.run(main)
