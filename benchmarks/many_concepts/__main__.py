"""What a library of thousands of concepts costs: `python -m benchmarks.many_concepts`.

Random directions with the shapes of real ones (`synthetic`), so that 5,000 concepts take a minute
and not a day, on the embedded base model and on a narrow one of the shape of SDXL. For each number
of concepts: milliseconds of processor time of each stage of an audit that ends at the screen, the
least of some tries, on one thread; bytes that are resident, written and sent; and the same record
and message as they would be if every finding were told. Times are of one thread; the load of the
machine stands beside them, for nothing else says what they are worth.

    python -m benchmarks.many_concepts --sizes 64,500          # some seconds
    python -m benchmarks.many_concepts --bases emoji-tiny      # 8 GB of memory at 5,000 concepts

Writes results/many_concepts.json and .md.
"""

from __future__ import annotations

import os
import time
from typing import Annotated

import torch
import typer
from rich.progress import track

from benchmarks.many_concepts.library import opening_ms
from benchmarks.many_concepts.stages import measured
from benchmarks.many_concepts.synthetic import adapter_of, materials_of
from benchmarks.report import write
from loragate_server.audit.machine import digest_of
from loragate_server.config.schema import EMBEDDED_PIPELINE
from loragate_server.models.base import BaseModel
from loragate_server.models.loading import load_base_model
from testkit.tiny_models import tiny_base

BASES = ("emoji-tiny", "narrow SDXL")


def base_of(name: str) -> BaseModel:
    """The base model of that name."""
    if name == "emoji-tiny":
        return load_base_model(EMBEDDED_PIPELINE, name)
    return tiny_base("sdxl")


def one_size(base: BaseModel, count: int, tries: int) -> dict[str, dict[str, float]]:
    """What so many concepts cost on a base model."""
    began = time.process_time()
    adapter = adapter_of(base)
    materials = materials_of(base, count, adapter)
    made_ms = (time.process_time() - began) * 1000
    began = time.process_time()
    digest_of(materials)
    digest_ms = (time.process_time() - began) * 1000
    ms, sizes = measured(base, materials, adapter, tries)
    ms = {"digest of materials, once": digest_ms, **opening_ms(count), **ms}
    return {"ms": ms, "bytes": {**sizes}, "made": {"ms": made_ms, "load": os.getloadavg()[0]}}


def table(found: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
    """The measurements as Markdown."""
    lines = ["# Libraries of thousands of concepts", ""]
    for name, by_size in found.items():
        loads = ", ".join(f"{one['made']['load']:.1f}" for one in by_size.values())
        lines += [f"## {name}", "", f"Load of the machine while it was measured: {loads}.", ""]
        lines += ["| concepts | " + " | ".join(by_size) + " |"]
        lines += ["|---|" + "---|" * len(by_size)]
        first = next(iter(by_size.values()))
        for kind, unit, digits in (("ms", "ms", 1), ("bytes", "", 0)):
            for row in first[kind]:
                values = (f"{one[kind][row]:,.{digits}f}" for one in by_size.values())
                lines.append(f"| {row}{f', {unit}' if unit else ''} | {' | '.join(values)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def main(
    sizes: Annotated[str, typer.Option(help="Numbers of forbidden concepts.")] = "64,500,5000",
    bases: Annotated[str, typer.Option(help="Of which base models.")] = ",".join(BASES),
    tries: Annotated[int, typer.Option(help="Of which the least counts.")] = 3,
) -> None:
    """Measures and writes results/many_concepts.json and .md."""
    torch.set_num_threads(1)
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    wanted = [(name, int(size)) for name in bases.split(",") for size in sizes.split(",")]
    for name, size in track(wanted, description="libraries"):
        found.setdefault(name, {})[str(size)] = one_size(base_of(name), size, tries)
    write("many_concepts", {"found": found}, table(found))


if __name__ == "__main__":
    typer.run(main)
