"""How near the lean way is on the embedded base: `python -m benchmarks.scale.agree`, some minutes.

All example adapters are judged by the shipped calibration and the default policy, once with dense
gradients and once with lean ones in their place. The sketches are narrower than those in use, at
whose width most layers of so small a model would be held in whole.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.report import write
from loragate_server.adapter.reference import StoredFile
from loragate_server.app.startup import quiet_libraries
from loragate_server.audit.calibration import load_calibration
from loragate_server.audit.engine import AuditEngine, AuditSettings
from loragate_server.audit.evidence import Evidence
from loragate_server.audit.materials import Materials, build_materials
from loragate_server.audit.uses import Member
from loragate_server.concepts.building.sketch import Widths, is_whole
from loragate_server.concepts.building.stratum import layers_of
from loragate_server.concepts.gradients import GradientPlan, LeanPlan, assemble, compute
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import build_probes
from loragate_server.config.schema import (
    EMBEDDED_CALIBRATION,
    EMBEDDED_LIBRARY,
    EMBEDDED_PIPELINE,
    EMBEDDED_POLICY,
)
from loragate_server.intake.reader import read_adapter
from loragate_server.models import BaseModel, load_base_model
from loragate_server.policy.decide import decide
from loragate_server.policy.parse import parse_policy
from loragate_server.progress import Leash
from loragate_server.testing import SHARED_CACHE

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
WIDTHS = Widths(24, 64)

Judged = dict[str, tuple[str, Evidence]]


def judged(base: BaseModel, materials: Materials) -> Judged:
    """Verdict and evidence of every example."""
    engine = AuditEngine(base, materials, AuditSettings())
    policy = parse_policy(EMBEDDED_POLICY.read_bytes())
    found = {}
    for file in sorted(ADAPTERS.glob("*.safetensors")):
        data = file.read_bytes()
        stored = StoredFile(hashlib.sha256(data).hexdigest(), len(data), file)
        member = Member(tuple(read_adapter(stored, base).adapters))
        evidence = engine.audit((member,), Leash())
        found[file.stem] = (decide(policy, evidence).verdict.value, evidence)
    return found


def lean_materials(base: BaseModel, library: ConceptLibrary, dense: Materials) -> Materials:
    """The same with lean gradients under the name of dense ones, so that the calibration fits."""
    plan = GradientPlan()
    with tempfile.TemporaryDirectory() as folder:
        probes = [build_probes(library, base, Path(folder), plan=each) for each in plan.plans]
    made = compute(base, probes, LeanPlan(widths=WIDTHS))
    return replace(dense, gradients=assemble(base, probes, plan, made))


def main() -> None:
    """Judges all examples both ways, and writes results/scale_agreement.json and .md."""
    quiet_libraries()
    torch.set_num_threads(1)
    base = load_base_model(EMBEDDED_PIPELINE, "emoji-tiny")
    library = ConceptLibrary.open(EMBEDDED_LIBRARY)
    dense = build_materials(library, base, SHARED_CACHE)
    dense = replace(dense, calibration=load_calibration(EMBEDDED_CALIBRATION))
    wanted = judged(base, dense)
    found = judged(base, lean_materials(base, library, dense))
    layers = layers_of(base).values()
    sketched = sum(not is_whole(layer, WIDTHS) for layer in layers)
    said = (
        f"The embedded base model with its library and calibration; sketches of width "
        f"{WIDTHS.range} and {WIDTHS.other}. {sketched} of {len(layers)} layers are sketched, the "
        "others are held in whole. Scores are those of the screen, the highest of all concepts; "
        "apart is the most that any concept's is."
    )
    rows = compared(wanted, found)
    write("scale_agreement", {"adapters": rows}, table(said, rows))


def compared(wanted: Judged, found: Judged) -> dict[str, dict[str, str | float]]:
    """By adapter, verdicts and screen scores of both ways."""
    rows: dict[str, dict[str, str | float]] = {}
    for name, (verdict, evidence) in wanted.items():
        other, seen = found[name]
        pairs = [
            (float(one.screen_score or 0), float(two.screen_score or 0))
            for one, two in zip(evidence.concepts, seen.concepts, strict=True)
        ]
        rows[name] = {
            "dense": verdict,
            "lean": other,
            "dense_score": max(one for one, _ in pairs),
            "lean_score": max(two for _, two in pairs),
            "apart": max(abs(one - two) for one, two in pairs),
        }
    return rows


def table(said: str, rows: dict[str, dict[str, str | float]]) -> str:
    """The rows as Markdown."""
    lines = ["# The lean way beside the dense one", "", said, ""]
    lines += ["| adapter | dense | score | lean | score | apart |", "|---|---|---|---|---|---|"]
    for name, one in rows.items():
        lines.append(
            f"| {name} | {one['dense']} | {one['dense_score']:.3f} | {one['lean']} | "
            f"{one['lean_score']:.3f} | {one['apart']:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
