"""Probes: the fixed inputs on which base and adapted model are compared, built once per base model.

A probe row is one reference picture of one concept, as latents, noised to one time with noise that
all concepts share, so that concepts differ by their pictures alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from loragate_server.concepts.library import Concept, ConceptLibrary
from loragate_server.concepts.pictures import load_pictures
from loragate_server.models.base import BaseModel, Conditioning
from loragate_server.progress import Report, silent


@dataclass(frozen=True)
class ProbePlan:
    """Which rows are made of each concept.

    Attributes:
        times: noise levels in (0, 1]; each picture is noised to each of them.
        pictures: reference pictures used per concept; a concept with fewer repeats them.
        prompt: the generic prompt of every row.
        seed: seed of the shared noise, one tensor per (picture slot, time).
    """

    times: tuple[float, ...] = (0.16, 0.30)
    pictures: int = 2
    prompt: str = "a picture"
    seed: int = 2504

    @property
    def rows(self) -> int:
        """Rows per concept."""
        return len(self.times) * self.pictures

    @property
    def digest(self) -> str:
        """Names the plan in cache files."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


@dataclass(frozen=True)
class ProbeSet:
    """The probes of one concept library on one base model.

    Rows are ordered by concept, then picture slot, then time.

    Attributes:
        concepts: forbidden concepts first, then the neutral bank.
        noisy: float32 [concepts, rows, ...latent], ready for the denoiser.
        target: same shape, what a perfect denoiser predicts.
        times: float32 [rows].
    """

    base_digest: str
    library_digest: str
    plan: ProbePlan
    concepts: tuple[Concept, ...]
    noisy: Tensor
    target: Tensor
    times: Tensor

    @property
    def forbidden_count(self) -> int:
        """How many of the leading concepts are forbidden."""
        return sum(concept.role == "forbidden" for concept in self.concepts)


def build_probes(
    library: ConceptLibrary,
    base: BaseModel,
    cache_dir: Path,
    report: Report = silent,
    plan: ProbePlan | None = None,
) -> ProbeSet:
    """Builds the probes, or reads them from the cache when base, library and plan are unchanged.

    Args:
        library: the open concept library.
        base: the base model whose VAE encodes the pictures.
        cache_dir: folder for `<digest>.safetensors`; created when missing.
        report: told the stage "probes" and the share of concepts encoded.
        plan: which rows to make; the default plan when None.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID.
    """
    plan = plan or ProbePlan()
    concepts = (*library.forbidden, *library.neutral)
    latents = _latents(concepts, library, base, cache_dir, report, plan)
    shape = latents.shape[2:]
    generator = torch.Generator().manual_seed(plan.seed)
    noise = torch.randn((plan.rows, *shape), generator=generator)
    times = torch.tensor(plan.times).repeat(plan.pictures)
    rows = latents.repeat_interleave(len(plan.times), dim=1)
    every = rows.flatten(0, 1).to(base.device)
    every_noise = noise.repeat(len(concepts), *(1 for _ in noise.shape[1:])).to(base.device)
    every_time = times.repeat(len(concepts)).to(base.device)
    with torch.inference_mode():
        noisy = base.add_noise(every, every_noise, every_time)
        target = base.target(every, every_noise, every_time)
    return ProbeSet(
        base.digest,
        library.digest,
        plan,
        concepts,
        noisy.reshape(rows.shape),
        target.reshape(rows.shape),
        times.to(base.device),
    )


def _latents(
    concepts: Sequence[Concept],
    library: ConceptLibrary,
    base: BaseModel,
    cache_dir: Path,
    report: Report,
    plan: ProbePlan,
) -> Tensor:
    """Latents float32 [concepts, picture slots, ...] on the CPU, from the cache where possible."""
    key = hashlib.sha256(f"{base.digest}{library.digest}{plan.digest}".encode()).hexdigest()
    path = cache_dir / f"probes-{key[:32]}.safetensors"
    if path.exists():
        try:
            return load_file(path)["latents"]
        except (SafetensorError, KeyError):
            path.unlink()  # a torn write; the pictures are still there
    parts = []
    for index, concept in enumerate(concepts):
        report("probes", index / len(concepts))
        pictures = load_pictures(concept, base.picture_size)
        slots = torch.arange(plan.pictures) % len(pictures)
        with torch.inference_mode():
            encoded = base.encode_pictures(pictures[slots].to(base.device))
        parts.append(encoded.float().cpu())
    report("probes", 1.0)
    latents = torch.stack(parts)
    cache_dir.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file({"latents": latents}, partial)
    partial.replace(path)
    return latents


def encode_generic_prompt(base: BaseModel, plan: ProbePlan) -> Conditioning:
    """The conditioning of the plan's prompt, one row, through the text encoders as they are now."""
    with torch.inference_mode():
        return base.encode_prompts([plan.prompt])
