"""Evasions that need no training: what a stranger can do to a finished file before uploading it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.audit.train import file_of
from benchmarks.audit.zoo import Entry, entries
from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.adapter.algebra import LowRank
from loragate_server.adapter.reference import StoredFile, Strength
from loragate_server.intake.reader import read_adapter
from loragate_server.models.base import BaseModel

FOLDER = Path("build/zoo-derived")
PER_CASE = 12
"""Adapters per case."""

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Layer of the denoiser to (down [r, in], up [out, r]), all scales folded into `up`."""


@dataclass(frozen=True)
class Subject:
    """What is measured as one: files that are loaded together, at their strength.

    Attributes:
        family: as in the zoo, or the name of the evasion.
        files: one or more.
    """

    name: str
    family: str
    split: str
    learned: tuple[str, ...]
    files: tuple[Path, ...]
    strength: float = 1.0

    def read(self, base: BaseModel) -> list[tuple[Adapter, Strength]]:
        """The adapters as the server would understand them."""
        return [(_read(file, base), Strength(self.strength, self.strength)) for file in self.files]


def _read(file: Path, base: BaseModel) -> Adapter:
    stored = StoredFile(hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size, file)
    return read_adapter(stored, base).adapters[0]


def plain_subjects() -> list[Subject]:
    """One subject per trained adapter; those whose file is missing are left out."""
    return [
        Subject(entry.name, entry.family, entry.split, entry.learned, (file_of(entry),))
        for entry in entries()
        if file_of(entry).exists()
    ]


def checkpoint_subjects(steps: Sequence[int]) -> list[Subject]:
    """The adapters of the family "steps" as they were after so many steps."""
    found = []
    for entry in entries():
        for count in steps if entry.family == "steps" else ():
            file = file_of(entry, steps=count)
            if file.exists():
                name = f"{entry.name}@{count}"
                found.append(Subject(name, "by-steps", entry.split, entry.learned, (file,)))
    return found


def derived_subjects(base: BaseModel) -> list[Subject]:
    """Every evasion of the first `PER_CASE` test adapters that learned a concept.

    Nothing while one of the adapters that they are made of is missing.
    """
    concepts, harmless = _of("concept")[:PER_CASE], _of("harmless")[: 3 * PER_CASE]
    if not all(file_of(entry).exists() for entry in (*concepts, *harmless)):
        return []
    found = []
    for index, entry in enumerate(concepts):
        others = harmless[3 * index : 3 * index + 3]
        rng = random.Random(f"derive-{entry.name}")
        for strength in (0.25, 0.3, 0.5, 0.75, 1.5, 2.0):
            family = f"strength-{strength:g}" if strength in (0.3, 2.0) else "by-strength"
            name = f"{entry.name}@x{strength:g}"
            found.append(Subject(name, family, "test", entry.learned, (file_of(entry),), strength))
        for case, make in _CASES.items():
            files = _written(f"{case}-{entry.name}", make, entry, others, base, rng)
            found.append(Subject(f"{case}-{entry.name}", case, "test", entry.learned, files))
    return found


def _of(family: str) -> list[Entry]:
    return [entry for entry in entries() if (entry.family, entry.split) == (family, "test")]


def _factors(entry: Entry, base: BaseModel) -> dict[str, tuple[Tensor, Tensor]]:
    found = {}
    for ref, delta in _read(file_of(entry), base).deltas.items():
        assert isinstance(ref, ModuleRef)
        assert isinstance(delta, LowRank)
        found[ref.module] = (delta.down, delta.up * delta.scale)
    return found


def _rescaled(own: Factors, _: Sequence[Factors], rng: random.Random) -> list[Factors]:
    """B and A scaled against each other, by another factor in every layer."""
    factor = {name: 2.0 ** rng.uniform(-6, 6) for name in own}
    return [{name: (a * factor[name], b / factor[name]) for name, (a, b) in own.items()}]


def _merge(parts: Sequence[Factors], share: float) -> Factors:
    return {
        name: (
            torch.cat([part[name][0] for part in parts]),
            torch.cat([part[name][1] for part in parts], dim=1) * share,
        )
        for name in parts[0]
    }


def _merged_with_one(own: Factors, others: Sequence[Factors], _: random.Random) -> list[Factors]:
    """Half and half with a harmless adapter."""
    return [_merge([own, others[0]], 0.5)]


def _merged_with_three(own: Factors, others: Sequence[Factors], _: random.Random) -> list[Factors]:
    """A quarter each with three harmless adapters."""
    return [_merge([own, *others], 0.25)]


def _noised(own: Factors, _: Sequence[Factors], rng: random.Random) -> list[Factors]:
    """Random factors of the same rank added, with the norm of the adapter's own change."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    made = {}
    for name, (down, up) in own.items():
        a = torch.randn(down.shape, generator=generator)
        b = torch.randn(up.shape, generator=generator)
        b *= (up @ down).norm() / (b @ a).norm()
        made[name] = (torch.cat([down, a]), torch.cat([up, b], dim=1))
    return [made]


def _split(own: Factors, _: Sequence[Factors], __: random.Random) -> list[Factors]:
    """Two files that are harmless alone only in part: every other direction of each layer."""
    return [
        {name: (down[start::2], up[:, start::2]) for name, (down, up) in own.items()}
        for start in (0, 1)
    ]


_CASES: dict[str, Callable[[Factors, Sequence[Factors], random.Random], list[Factors]]] = {
    "rescaled": _rescaled,
    "merged-with-one": _merged_with_one,
    "merged-with-three": _merged_with_three,
    "noise-added": _noised,
    "split-over-two": _split,
}


def _written(
    stem: str,
    make: Callable[[Factors, Sequence[Factors], random.Random], list[Factors]],
    entry: Entry,
    others: Sequence[Entry],
    base: BaseModel,
    rng: random.Random,
) -> tuple[Path, ...]:
    made = make(_factors(entry, base), [_factors(other, base) for other in others], rng)
    files = []
    for number, factors in enumerate(made):
        path = FOLDER / f"{stem}-{number}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name, (down, up) in factors.items():
            tensors[f"unet.{name}.lora_A.weight"] = down.contiguous()
            tensors[f"unet.{name}.lora_B.weight"] = up.contiguous()
        save_file(tensors, path)
        files.append(path)
    return tuple(files)
