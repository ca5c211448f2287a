"""What the response stage measured of an adapter before, where it would measure the same again.

A concept that is added changes the library, and so everything that a verdict is bound to. What the
response stage found about the other suspects stays true to the last bit, as long as its forward
passes are fed the same rows in the same order on the same machine. So the rows are named by their
own digest, prompts as the text encoders give them included: those are encoded together, and a
library of another length could have them summed in another order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from loragate_server.audit.evidence import ENGINE_VERSION, Evidence, LayerProfile, Machine
from loragate_server.audit.materials import Materials
from loragate_server.audit.packed import whole
from loragate_server.audit.response import Adaptation
from loragate_server.audit.score import Scores
from loragate_server.audit.stages import Responded
from loragate_server.concepts.probes import encode_probe_prompts, told_together
from loragate_server.models.base import BaseModel


@dataclass(frozen=True)
class Fed:
    """What the response stage is fed, by name.

    Attributes:
        concepts: forbidden concept to the digest of its rows, in the library's order.
        bank: digest over those of the neutral bank, which is run beside the suspects.
    """

    concepts: Mapping[str, str]
    bank: str


@dataclass(frozen=True)
class Recalled:
    """What was measured of one adapter that has one use.

    Attributes:
        rows: of each suspect what its rows were, see `Fed.concepts`; in the order of the pass.
        scores: of each, `Responded.scores`.
        error_changes: of each, `Responded.error_change`.
        layers: `Responded.layers`.
    """

    base_digest: str
    engine_version: str
    kernel_backend: str
    bank: str
    machine: Machine
    rows: tuple[str, ...]
    scores: tuple[float, ...]
    error_changes: tuple[Mapping[str, float], ...]
    layers: tuple[LayerProfile, ...]


@dataclass(frozen=True)
class _Remembered(Responded):
    """A response that was not measured just now; what counts without a calibration is NaN."""

    error_changes: tuple[Mapping[str, float], ...] = ()

    def error_change(self, suspect: int) -> dict[str, float]:
        """As it was measured."""
        return dict(self.error_changes[suspect])


@dataclass(frozen=True)
class Recollection:
    """Answers whether the response stage need not run for one question.

    Attributes:
        recalled: what there is.
        rows: by forbidden concept, in the library's order, what its rows are now; empty where the
            concept has to be measured.
        denoiser: component outside of which nothing may be changed: what text encoders make of
            all prompts together is not known of an adapter that changes them.
    """

    recalled: Recalled
    rows: Sequence[str]
    denoiser: str

    def of(self, adaptation: Adaptation, suspects: Sequence[int]) -> Responded | None:
        """What the stage would measure; None where that is not known."""
        if tuple(self.rows[index] for index in suspects) != self.recalled.rows:
            return None
        for adapter, strength in adaptation:
            if strength.denoiser != 1.0 or any(
                ref.component != self.denoiser for ref in adapter.deltas
            ):
                return None
        scores = torch.tensor(self.recalled.scores, dtype=torch.float64)
        unknown = torch.full_like(scores, float("nan"))
        return _Remembered(
            Scores(scores, unknown),
            unknown,
            unknown[:, None],
            (),
            self.recalled.layers,
            (),
            self.recalled.error_changes,
        )


def fed_of(base: BaseModel, materials: Materials) -> Fed:
    """Names what the response stage is fed now."""
    digests = [hashlib.sha256() for _ in materials.probes.concepts]
    for probes in materials.sets:
        told = encode_probe_prompts(base, probes)
        # of a large library, the prompts of a pass are encoded by themselves, and may round so
        alone = probes.plan.named and not told_together(probes)
        for index, found in enumerate(digests):
            found.update(b"alone\n" if alone else b"")
            place = torch.tensor([index if probes.plan.named else 0], device=base.device)
            row = told.rows(place).tensors
            parts = {"noisy": probes.noisy[index], "target": probes.target[index]}
            for name, tensor in (
                {**parts, "times": probes.times} | dict(sorted(row.items()))
            ).items():
                found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                plain = tensor.detach().cpu().contiguous().view(torch.uint8)
                found.update(plain.numpy().data)
    every = [found.hexdigest() for found in digests]
    count = materials.probes.forbidden_count
    return Fed(
        {
            one.concept_id: name
            for one, name in zip(materials.forbidden, every[:count], strict=True)
        },
        hashlib.sha256("\n".join(every[count:]).encode()).hexdigest(),
    )


def recalled_of(evidence: Evidence, fed: Fed) -> Recalled | None:
    """What evidence on record says of the response stage.

    Args:
        evidence: of one adapter.
        fed: what the stage was fed then.

    Returns:
        None where the stage was not run, or where there were several uses, of which evidence has
        the gravest alone; also where the concepts that are not told one by one cannot be read.
    """
    try:
        every = whole(evidence).concepts  # what is told one by one is not all that was in a pass
    except ValueError:
        return None
    suspects = [one for one in every if one.stage == "response"]
    alone = len(evidence.uses) == len(evidence.adapters) == 1 and not evidence.restricted_to
    known = all(one.concept_id in fed.concepts for one in suspects)
    if not (suspects and alone and known) or evidence.inconclusive or evidence.machine is None:
        return None
    scores = [one.response_score for one in suspects]
    if evidence.adapters[0].denoiser_strength != 1.0:
        return None
    if evidence.adapters[0].kind != "lora" or None in scores:
        return None
    return Recalled(
        evidence.base_digest,
        evidence.engine_version,
        evidence.kernel_backend,
        fed.bank,
        evidence.machine,
        tuple(fed.concepts[one.concept_id] for one in suspects),
        tuple(score for score in scores if score is not None),
        tuple(one.error_change_by_time for one in suspects),
        evidence.layers,
    )


def usable(recalled: Recalled, base: BaseModel, backend: str, machine: Machine, fed: Fed) -> bool:
    """Whether an engine would measure with the same means; which rows is asked for each suspect."""
    alike = replace(recalled.machine, materials_digest=machine.materials_digest)
    return (
        recalled.base_digest == base.digest
        and recalled.engine_version == ENGINE_VERSION
        and recalled.kernel_backend == backend
        and recalled.bank == fed.bank
        and alike == machine
    )
