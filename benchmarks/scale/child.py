"""Makes the gradients of one concept in a process of its own, and says what that took.

    python -m benchmarks.scale.child lean --model "SD 1.5" --size 128 --rows 4

The peak is that of the resident memory (VmHWM), counted from where the process stood before it had
the model; the kernel's mark is set back when the model is there, so that loading does not count.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.scale.models import published
from loragate_server.concepts.building.builder import Builder
from loragate_server.concepts.building.memory.need import needed_bytes
from loragate_server.concepts.gradients import GradientPlan, LeanPlan
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import ProbePlan, build_probes
from loragate_server.config.gradients import GradientsSection
from loragate_server.config.schema import EMBEDDED_LIBRARY
from loragate_server.models.base import BaseModel
from loragate_server.progress import at_once as at_once_turns
from testkit.tiny_models import tiny_base

_STATUS = Path("/proc/self/status")
_MARK = Path("/proc/self/clear_refs")


def resident(what: str) -> int:
    """Bytes: "VmRSS" now, "VmHWM" the most since the mark."""
    found = re.search(rf"^{what}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def main(
    way: Annotated[str, typer.Argument(help="dense or lean")],
    model: Annotated[str, typer.Option()] = "SD 1.5",
    size: Annotated[int, typer.Option(help="Height and width of pictures, in pixels.")] = 128,
    rows: Annotated[int, typer.Option(help="Rows of a micro-batch of the lean way.")] = 4,
    pictures: Annotated[int, typer.Option(help="Rows of the gradient.")] = 12,
) -> None:
    """Prints what was predicted and measured, as JSON, in bytes and seconds of processor time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    gradients_of(tiny_base("sd"), way, rows=2, at_once=1)  # so that all libraries are there
    before = resident("VmRSS")
    base = published(model, "cpu", size)
    print(json.dumps(gradients_of(base, way, pictures, rows, before)))


def gradients_of(
    base: BaseModel, way: str, rows: int, at_once: int, before: int = 0
) -> dict[str, str | float]:
    """Makes the gradients of one concept from so many rows, all of one time."""
    probed = ProbePlan(pictures=rows, times=(0.3,), neutral=8, named=True)
    plan = LeanPlan((probed,)) if way == "lean" else GradientPlan((probed,))
    library = ConceptLibrary.open(EMBEDDED_LIBRARY)
    one = replace(library, concepts=library.forbidden[:1])
    with tempfile.TemporaryDirectory() as folder:
        probes = [build_probes(one, base, Path(folder), plan=probed)]
    builder = Builder(base, probes, GradientsSection(rows_at_once=at_once), at_once_turns, plan)
    need = builder.fitting()
    _MARK.write_text("5")
    loaded, began = resident("VmRSS"), time.process_time()
    builder.make(0)
    took_s = time.process_time() - began
    return {
        "way": way,
        "predicted_bytes": needed_bytes(need, base.device),
        "measured_bytes": resident("VmHWM") - before,
        "model_bytes": loaded - before,
        "weights_bytes": need.weights,
        "rows": rows,
        "rows_at_once": need.rows,
        "seconds": took_s,
    }


if __name__ == "__main__":
    typer.run(main)
