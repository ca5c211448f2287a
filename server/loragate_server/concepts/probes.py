"""Probes: the fixed inputs on which base and adapted model are compared, built once per base model.

A probe row is one reference picture of one concept, as latents, noised to one time with noise that
all concepts share, so that concepts differ by their pictures alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from loragate_server.concepts.cache import TensorCache
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.manifest import MIN_NEUTRAL
from loragate_server.concepts.pictures import load_pictures
from loragate_server.models.base import BaseModel, Conditioning
from loragate_server.progress import Report, Turns, at_once, silent


@dataclass(frozen=True)
class ProbePlan:
    """Which rows are made of which concepts.

    The default gives 2 rows per concept. More pictures tell more than more times: on the example
    adapters, three pictures at one time separated learned concepts better than two pictures at two
    times. A third picture adds little to that and costs half as much time again.

    Attributes:
        pictures: reference pictures used per concept, the first so many in the manifest; a
            concept with fewer repeats them under other noise.
        times: noise levels in (0, 1], as shares of the schedule; each picture is noised to each.
        neutral: neutral concepts used as the bank; all where the library has fewer. An audit runs
            all of them whatever it looks for, so they make up most of its time.
        prompt: the generic prompt of every row.
        named: whether rows are told the concept's own first prompt instead, where it has one. An
            adapter may show a concept only to those who ask for it.
        seed: seed of the shared noise, one tensor per (picture slot, time).
    """

    pictures: int = 2
    times: tuple[float, ...] = (0.16,)
    neutral: int = 32
    prompt: str = "a picture"
    named: bool = False
    seed: int = 2504

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise ValueError(f"pictures must be at least 1, not {self.pictures}")
        if not self.times or not all(0 < time <= 1 for time in self.times):
            raise ValueError(f"times must be one or more numbers in (0, 1], not {self.times}")
        if self.neutral < MIN_NEUTRAL:
            raise ValueError(f"neutral must be at least {MIN_NEUTRAL}, not {self.neutral}")

    @property
    def rows(self) -> int:
        """Rows per concept."""
        return len(self.times) * self.pictures


@dataclass(frozen=True)
class ProbeSet:
    """The probes of one concept library on one base model.

    Rows are ordered by concept, then picture slot, then time.

    Attributes:
        concepts: every forbidden concept, then the neutral bank; both ordered by id.
        noisy: float32 [concepts, rows, ...latent], ready for the denoiser; on the CPU, for those of
            thousands of concepts would fill a device of which an audit needs a few.
        target: same shape and place, what a perfect denoiser predicts.
        times: float32 [rows], on the base model's device.
    """

    base_digest: str
    library_digest: str
    plan: ProbePlan
    concepts: tuple[Concept, ...]
    noisy: Tensor
    target: Tensor
    times: Tensor

    @cached_property
    def forbidden_count(self) -> int:
        """How many of the leading concepts are forbidden."""
        return sum(concept.role == "forbidden" for concept in self.concepts)

    @property
    def neutral_count(self) -> int:
        """How many concepts the neutral bank has."""
        return len(self.concepts) - self.forbidden_count

    def prompt_of(self, index: int) -> str:
        """What the rows of a concept are told."""
        prompts = self.concepts[index].prompts
        return prompts[0] if self.plan.named and prompts else self.plan.prompt


def build_probes(
    library: ConceptLibrary,
    base: BaseModel,
    cache_dir: Path,
    report: Report = silent,
    plan: ProbePlan | None = None,
    turns: Turns = at_once,
) -> ProbeSet:
    """Builds the probes; concepts that were encoded before come from the cache.

    Args:
        library: the open concept library.
        base: the base model whose VAE encodes the pictures.
        cache_dir: folder for one file per concept; created when missing.
        report: told the stage "probes" and the share of concepts encoded.
        plan: which rows to make; the default plan when None.
        turns: when the base model is free; one concept is encoded in one.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID; DISK_FULL when the cache cannot be written.
    """
    plan = plan or ProbePlan()
    concepts = (*library.forbidden, *bank_of(library, plan))
    latents = _latents(concepts, base, cache_dir, report, plan, turns)
    shape = latents.shape[2:]
    generator = torch.Generator().manual_seed(plan.seed)
    noise = torch.randn((plan.rows, *shape), generator=generator)
    times = torch.tensor(plan.times).repeat(plan.pictures)
    rows = latents.repeat_interleave(len(plan.times), dim=1)
    every = rows.flatten(0, 1)
    every_noise = noise.repeat(len(concepts), *(1 for _ in noise.shape[1:]))
    every_time = times.repeat(len(concepts))
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


def bank_of(library: ConceptLibrary, plan: ProbePlan) -> tuple[Concept, ...]:
    """The neutral concepts used, by id.

    They are picked by a hash of the id, so that the pick follows no alphabet, and one concept
    more in the library changes it in one place at most.
    """
    picked = sorted(library.neutral, key=lambda c: hashlib.sha256(c.concept_id.encode()).digest())
    return tuple(sorted(picked[: plan.neutral], key=lambda c: c.concept_id))


def _latents(
    concepts: Sequence[Concept],
    base: BaseModel,
    cache_dir: Path,
    report: Report,
    plan: ProbePlan,
    turns: Turns,
) -> Tensor:
    """Latents float32 [concepts, picture slots, ...] on the CPU."""

    def encode(number: int) -> dict[str, Tensor]:
        pictures = load_pictures(concepts[number], base.picture_size, plan.pictures)
        return {"latents": turns(lambda: _encode(base, pictures, plan.pictures))}

    # latents do not depend on times and seed: plans that differ in these alone share files
    cache = TensorCache(cache_dir, "probes", base, repr(plan.pictures))
    shown = [repr(concept.picture_sha256[: plan.pictures]) for concept in concepts]
    return torch.stack([each["latents"] for each in cache.each(shown, encode, report)])


MOST_PIXELS = 4 << 20
"""Of pictures that go through the VAE together. What it makes of a million pixels takes gigabytes,
so that a dozen pictures of SDXL's size would want more than gradients do."""


def _encode(base: BaseModel, pictures: Tensor, slots: int) -> Tensor:
    """Latents float32 [slots, ...] of one concept on the CPU."""
    index = torch.arange(slots) % len(pictures)
    pixels = pictures.shape[-2] * pictures.shape[-1]
    with torch.inference_mode():
        if slots * pixels <= MOST_PIXELS:
            encoded = base.encode_pictures(pictures[index].to(base.device))
        else:
            pieces = pictures.split(max(1, MOST_PIXELS // pixels))
            found = [base.encode_pictures(piece.to(base.device)) for piece in pieces]
            encoded = torch.cat(found)[index.to(base.device)]
    # Latents of one picture keep the layout of the convolution, which safetensors does not save.
    return encoded.float().cpu().contiguous()


MOST_PROMPTS = 256
"""Concepts up to which the prompts of all are encoded, whichever are run: then the text encoders
have a batch of one size, and round alike. Of a larger library, those of the others would cost more
than the audit."""


def told_together(probes: ProbeSet) -> bool:
    """Whether the prompts of all concepts are encoded, whichever are run."""
    return len(probes.concepts) <= MOST_PROMPTS


def encode_probe_prompts(
    base: BaseModel, probes: ProbeSet, concepts: Tensor | None = None
) -> Conditioning:
    """What the rows are told, through the text encoders as they are now (hooks included).

    One row per concept under a named plan, one row in all otherwise; see `prompt_rows`.

    Args:
        base: the base model.
        probes: of a library.
        concepts: int64 [n], those that are run; of a large library no others are encoded.
    """
    prompts = [probes.plan.prompt]
    if probes.plan.named:
        run: Sequence[int] = range(len(probes.concepts))
        if concepts is not None and not told_together(probes):
            run = concepts.tolist()
        prompts = [probes.prompt_of(index) for index in run]
    with torch.inference_mode():
        return base.encode_prompts(prompts)


def prompt_rows(probes: ProbeSet, concepts: Tensor) -> Tensor:
    """Which rows of `encode_probe_prompts` belong to `concepts` (int64 [n]), those that are run."""
    if not probes.plan.named:
        return torch.zeros_like(concepts)
    return concepts if told_together(probes) else torch.arange(len(concepts))
