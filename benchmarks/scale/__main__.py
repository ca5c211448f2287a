"""What gradients of real base models take: `python -m benchmarks.scale`.

SD 1.5 at its real size is measured on this machine with random weights, in a process of its own for
each way: the dense one that was, and the lean one. The others are predicted by the same model of
memory, on the device `meta`. About 3 GB, 5 GB for the dense way, and some minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Annotated

import torch
import typer

from benchmarks.report import write
from benchmarks.scale.models import NAMES, published
from loragate_server.concepts.building.memory.need import (
    Need,
    Shapes,
    dense_need,
    directions_bytes,
    lean_need,
    needed_bytes,
)
from loragate_server.concepts.gradients import GradientPlan, LeanPlan
from loragate_server.models.pipeline import PipelineModel

CONCEPTS = 64
AT_ONCE = 4
GPU = "cuda"
"""Whose gaps and scratch space are counted in what is predicted."""
_GB = 1e9


def measured(way: str, size: int) -> dict[str, float]:
    """One concept on SD 1.5, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.scale.child", way, "--size", str(size)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def predicted(name: str) -> dict[str, float]:
    """Bytes of both ways for a GPU, from shapes alone."""
    base = published(name, "meta")
    assert isinstance(base, PipelineModel)
    pipeline = base.pipeline
    side = base.picture_size[0] // pipeline.vae_scale_factor
    latent = (int(pipeline.vae.config["latent_channels"]), side, side)
    plan = GradientPlan()
    kept = directions_bytes(base, plan.rank, CONCEPTS * len(plan.strata))
    rows = max(each.pictures for each in plan.plans)
    shapes = Shapes.of(base, latent, rows, kept)
    widths = LeanPlan().widths
    dense, lean, one = dense_need(shapes), *(lean_need(shapes, widths, n) for n in (AT_ONCE, 1))
    least = replace(one, passes=one.passes - shapes.beside, away=True)
    return {
        "weights_bytes": dense.weights,
        "directions_bytes": kept,
        "dense_bytes": _on_gpu(dense),
        "lean_bytes": _on_gpu(lean),
        "lean_passes_bytes": lean.passes,
        "lean_encoders_bytes": lean.encoders,
        "lean_after_bytes": lean.after,
        "least_bytes": _on_gpu(least),
    }


def _on_gpu(need: Need) -> int:
    return needed_bytes(need, torch.device(GPU))


def _gb(size: float) -> str:
    return f"{size / _GB:.2f}" if size < 10 * _GB else f"{size / _GB:.1f}"


def _table(measured_: list[dict[str, float]], predicted_: dict[str, dict[str, float]]) -> str:
    lines = [
        "# Gradients of real base models",
        "",
        "One concept at one time (12 rows) on SD 1.5 at its real size: random weights in bfloat16, "
        "pictures of 128 x 128, one thread of a CPU. The peak is the resident memory of a process "
        "of its own, less what it had before it made the model. Seconds are of processor time: the "
        "machine did other things beside.",
        "",
        "| way | rows at once | predicted, GB | measured, GB | apart | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for one in measured_:
        apart = one["predicted_bytes"] / one["measured_bytes"] - 1
        lines.append(
            f"| {one['way']} | {one['rows_at_once']} | {_gb(one['predicted_bytes'])} | "
            f"{_gb(one['measured_bytes'])} | {apart:+.1%} | {one['seconds']:.1f} |"
        )
    lines += [
        "",
        f"Predicted for a GPU at the model's own size of picture, {CONCEPTS} concepts in all, "
        f"{AT_ONCE} rows at once, in bfloat16; nothing of it was measured on a GPU. GB:",
        "",
        "| model | weights | kept | dense | lean | passes | text encoders | end | least |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in predicted_.items():
        columns = ("weights", "directions", "dense", "lean")
        moments = ("lean_passes", "lean_encoders", "lean_after")
        names = (*columns, *moments, "least")
        sizes = " | ".join(_gb(one[f"{column}_bytes"]) for column in names)
        lines.append(f"| {name} | {sizes} |")
    lines += [
        "",
        "Kept are the directions of all concepts, which lie on the device when all is done. Least: "
        "one row at once, and text encoders and VAE away from the device while the denoiser works.",
    ]
    return "\n".join(lines)


def main(
    size: Annotated[int, typer.Option(help="Height and width of the measured pictures.")] = 128,
) -> None:
    """Measures SD 1.5, predicts all, and writes results/scale.json and .md."""
    foretold = {name: predicted(name) for name in NAMES}
    found = [measured(way, size) for way in ("dense", "lean")]
    write("scale", {"measured": found, "predicted": foretold}, _table(found, foretold))


if __name__ == "__main__":
    typer.run(main)
