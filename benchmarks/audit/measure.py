"""Measures the zoo once and keeps the raw numbers: `python -m benchmarks.audit.measure --help`.

Statistics are then tried on the numbers (`evaluate`), which takes seconds, not hours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.audit.derive import (
    Subject,
    checkpoint_subjects,
    derived_subjects,
    plain_subjects,
)
from benchmarks.audit.library import FOLDER as LIBRARY
from benchmarks.audit.library import build_library
from benchmarks.audit.train import PIPELINE
from benchmarks.audit.zoo import CHECKPOINTS
from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.adapter.reference import Strength
from loragate_server.audit.batching import exact_batch_rows
from loragate_server.audit.effects import effects_of, typical_effects
from loragate_server.audit.materials import Materials, build_materials
from loragate_server.audit.naming import NameShares
from loragate_server.audit.passes import WATCHED_BANK
from loragate_server.audit.response import measure
from loragate_server.audit.screen import Screen, aims, degrees, hear, screen, votes_for
from loragate_server.audit.stages import Responded, Screened
from loragate_server.audit.weights import Scales, fit_weights
from loragate_server.concepts.gradients import ConceptGradients, GradientPlan
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.models import load_base_model
from loragate_server.models.apply import layer_shape
from loragate_server.models.base import BaseModel
from loragate_server.progress import Leash

SCREENED, FOLDER = Path("build/zoo-screened"), Path("build/zoo-measured")
SCALES = Path("build/zoo-scales.json")
CACHE = Path("build/zoo-cache")
SUSPECTS, AIMED = 5, 2
"""Concepts per adapter, the screen's first so many by score and by aim, that go on to the response
stage."""
AT_ONCE = 4
DEGREE_ALONE = ("by-steps", "by-strength")
"""Families that are there for the degree, which the screen gives."""


@dataclass(frozen=True)
class Workbench:
    """Everything that measuring needs, made once: what the server itself uses."""

    base: BaseModel
    materials: Materials
    batch_rows: int

    @property
    def gradients(self) -> ConceptGradients:
        """The concept gradients."""
        assert self.materials.gradients is not None
        return self.materials.gradients

    @property
    def ids(self) -> list[str]:
        """Concepts in the order of the screen's arrays."""
        return [concept.concept_id for concept in self.gradients.concepts]

    @property
    def forbidden(self) -> range:
        """The forbidden concepts, which come first in every array."""
        return range(self.gradients.forbidden_count)


def workbench(rank: int = 4) -> Workbench:
    """Loads the base model and builds library, gradients and probes, or reads them from disk."""
    library = ConceptLibrary.open(LIBRARY if LIBRARY.exists() else build_library())
    base = load_base_model(PIPELINE, "emoji-tiny", device="cpu", dtype=torch.float32)
    materials = build_materials(library, base, CACHE, gradients=GradientPlan(rank=rank))
    return Workbench(base, materials, exact_batch_rows(base, materials.probes, 24).rows)


def screen_one(bench: Workbench, subject: Subject) -> None:
    """What the weights alone say; one .npz."""
    adaptation = subject.read(bench.base)
    began = time.monotonic()
    found = screen(bench.base, bench.gradients, adaptation, "reference")
    heard = hear(found, bench.gradients, bench.forbidden)
    spent_s = time.monotonic() - began
    np.savez_compressed(
        SCREENED / f"{subject.name}.npz",
        family=subject.family,
        split=subject.split,
        learned=np.array(subject.learned, dtype=str),
        complete=all(adapter.coverage.complete for adapter, _ in adaptation),
        layers=np.array([f"{ref.component}:{ref.module}" for ref in found.layers], dtype=str),
        gain=found.gain.numpy().astype(np.float32),
        share_rows=np.array(found.shares.rows, dtype=np.int64),
        log_share=found.shares.log_share.numpy(),
        screened_whole=found.complete,
        unweighted=heard.scores.score.numpy(),
        named=heard.named.numpy(),
        bank=heard.bank.numpy(),
        aim=aims(found, bench.gradients, bench.forbidden).numpy(),
        degree=degrees(found, bench.gradients, bench.forbidden).numpy(),
        screen_s=spent_s,
        spectrum=np.array(_spectrum(bench, adaptation)),
    )


def read_screen(name: str) -> Screen:
    """The gains that `screen_one` wrote."""
    with np.load(SCREENED / f"{name}.npz") as data:
        refs = tuple(ModuleRef(*one.split(":", 1)) for one in data["layers"].tolist())
        gain = torch.from_numpy(data["gain"]).double()
        shares = NameShares(
            tuple(data["share_rows"].tolist()), torch.from_numpy(data["log_share"]).double()
        )
        return Screen(refs, gain, bool(data["screened_whole"]), shares)


def development_scales(bench: Workbench) -> Scales:
    """The weights and the typical effects of the layers, from the development split alone."""
    by_family: dict[str, list[tuple[Subject, Screen]]] = {"concept": [], "harmless": []}
    for subject in plain_subjects():
        if subject.split == "development" and subject.family in by_family:
            by_family[subject.family].append((subject, read_screen(subject.name)))
    bank = slice(bench.gradients.forbidden_count, None)
    return Scales(
        fit_weights(
            (one.layers, votes_for(one, bench.gradients, bench.ids.index(subject.learned[0])))
            for subject, one in by_family["concept"]
        ),
        typical_effects(
            (one.layers, effects_of(one.gain, bank)) for _, one in by_family["harmless"]
        ),
    )


def measure_together(bench: Workbench, subjects: Sequence[Subject], scales: Scales) -> None:
    """Runs a few subjects, screened before, in shared forward passes; one .npz each."""
    screens, chosen = [], set[int]()
    for subject in subjects:
        found = read_screen(subject.name)
        seen = Screened.of(found, bench.gradients, bench.forbidden, scales)
        screens.append(seen)
        chosen |= set(seen.scores.score.topk(SUSPECTS).indices.tolist())
        chosen |= set(torch.tensor(seen.screening.aims).topk(AIMED).indices.tolist())
        chosen |= {bench.ids.index(one) for one in subject.learned}
    suspects = sorted(chosen)
    probes, named = bench.materials.probes, bench.materials.named
    assert named is not None
    bank = range(probes.forbidden_count, len(probes.concepts))
    watched = len(suspects) + WATCHED_BANK
    responses = measure(
        bench.base,
        (probes, named),
        torch.tensor([*suspects, *bank]),
        [subject.read(bench.base) for subject in subjects],
        batch_rows=bench.batch_rows,
        backend="reference",
        leash=Leash(),
        watched=watched,
    )
    for index, subject in enumerate(subjects):
        response = responses[index]
        responded = Responded.of(response, (probes, named), len(suspects), watched)
        np.savez_compressed(
            FOLDER / f"{subject.name}.npz",
            screen=screens[index].scores.score.numpy(),
            named=np.array(screens[index].screening.named),
            bank=np.array(screens[index].screening.bank),
            profile=np.array(screens[index].screening.profile),
            suspects=np.array(suspects),
            response=responded.scores.score.numpy(),
            change=torch.cat(response.changes, dim=1).numpy(),
        )


def _spectrum(
    bench: Workbench, adaptation: Sequence[tuple[Adapter, Strength]]
) -> list[list[float]]:
    """Per changed layer: Frobenius norm, largest singular value, energy share of it, entropy."""
    modules = bench.base.adaptable_modules()
    rows = []
    for adapter, strength in adaptation:
        for ref, delta in adapter.deltas.items():
            shape = layer_shape(modules[ref.component, ref.module])
            dense = delta.dense(shape, strength.denoiser).flatten(1)
            values = torch.linalg.svdvals(dense)
            shares = values.square() / values.square().sum().clamp_min(1e-30)
            entropy = -(shares * shares.clamp_min(1e-30).log()).sum()
            norm = float(dense.norm())
            rows.append([norm, float(values[0]), float(shares[0]), float(entropy)])
    return rows


def every_subject(base: BaseModel) -> list[Subject]:
    """All whose files exist."""
    return [*plain_subjects(), *checkpoint_subjects(CHECKPOINTS), *derived_subjects(base)]


def main(
    limit: Annotated[int, typer.Option(help="Stop after so many; 0: all.")] = 0,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    only: Annotated[str, typer.Option(help="Only subjects whose name starts so.")] = "",
) -> None:
    """Screens every adapter and evasion, then measures the response of each."""
    torch.set_num_threads(threads)
    for folder in (SCREENED, FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
    bench = workbench()
    subjects = every_subject(bench.base)
    for subject in subjects:
        if not (SCREENED / f"{subject.name}.npz").exists():
            screen_one(bench, subject)
    typer.echo(f"{len(subjects)} screened")
    scales = development_scales(bench)
    SCALES.write_text(json.dumps(asdict(scales), indent=1) + "\n")
    asked = [s for s in subjects if s.family not in DEGREE_ALONE]
    missing = [s for s in asked if not (FOLDER / f"{s.name}.npz").exists()]
    missing = [s for s in missing if s.name.startswith(only)][: limit or None]
    began = time.monotonic()
    for start in range(0, len(missing), AT_ONCE):
        measure_together(bench, missing[start : start + AT_ONCE], scales)
        done = min(start + AT_ONCE, len(missing))
        each_s = (time.monotonic() - began) / done
        typer.echo(f"{done}/{len(missing)}: {each_s:.1f} s each, {missing[start].name}")


if __name__ == "__main__":
    typer.run(main)
