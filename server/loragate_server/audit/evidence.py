"""`Evidence`: what an audit measured. Free of torch, so that policy and record can read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ENGINE_VERSION = "14"
"""Raised whenever the same inputs could give another result; cached verdicts depend on it."""

MEASURED_AS = "8"
"""The engine version since which calibrations are measured as now. Raised to `ENGINE_VERSION` with
what is measured, and not with what is made of it: operators need not measure again for that."""

SKETCH_VERSION = 1
"""Raised whenever the same weights would give another sketch (`audit.sketch`)."""

SKETCH_DIMENSIONS = 1024
"""Numbers of a sketch for the denoiser; as many may follow for the text encoders."""


@dataclass(frozen=True)
class ConceptEvidence:
    """What was measured for one forbidden concept.

    Attributes:
        score: distance from the neutral bank on the same adapter, in standard deviations;
            positive when the adapter fits the concept better than it fits the bank.
        p_value: one-sided probability of such a score for a concept that was not learned.
        degree: degree of penetration, 0 to 100.
        error_change_by_time: timestep stratum ("0.16") to the mean relative change of the
            denoising loss, adapted against base; negative is better fit. Empty where no forward
            pass was run.
        family_p_value: conformal p-value over all audited concepts and witnesses (score of both
            stages, response alone, both standings under the name, aim) at once: how often the
            gravest witness on the gravest concept of a harmless adapter is as grave. None without
            a calibration.
        screen_score: the screen's own score, in standard deviations; None where it was not run.
        response_score: the response stage's own; None where the concept ended at the screen.
        degree_p_value: how often the most penetrated concept of a harmless adapter is penetrated
            as much, for all that its weights do (the degree at unit effect, whatever the
            strength). None without a calibration.
        stage: the last stage that looked at the concept, "screen" or "response".
        use: index into `Evidence.uses` of the gravest use, which these numbers are of.
        hands: by how many different people, shoots or sources its pictures are; 0 in records of
            before that was told.
    """

    concept_id: str
    concept_name: str
    category: str
    severity: str
    score: float
    p_value: float
    degree: float
    error_change_by_time: Mapping[str, float]
    family_p_value: float | None = None
    screen_score: float | None = None
    response_score: float | None = None
    degree_p_value: float | None = None
    stage: Literal["screen", "response"] = "response"
    use: int = 0
    hands: int = 0


@dataclass(frozen=True)
class UsedAdapter:
    """An adapter in a use: its index into `Evidence.adapters`, and its strengths there."""

    adapter: int
    denoiser_strength: float
    text_encoder_strength: float


@dataclass(frozen=True)
class UseEvidence:
    """Adapters that were judged as active together, read as these loaders read them.

    Attributes:
        loaders: those whose reading of the bytes it is; empty where no loader was named.
    """

    adapters: tuple[UsedAdapter, ...]
    loaders: tuple[str, ...]


@dataclass(frozen=True)
class HeatMap:
    """Which layers carry a concept, and at which noise levels.

    Attributes:
        concept_id: the concept with the highest score.
        layers: names of blocks of the denoiser, in order of the forward pass.
        times: noise levels as shares of the schedule ("0.16"), rising.
        values: by layer and time, standard deviations above the neutral bank of the first-order
            change that the adapter's weights make to the concept's denoising loss.
    """

    concept_id: str
    layers: tuple[str, ...]
    times: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class LayerProfile:
    """Activation change of one layer, adapted against base.

    Over the generic probes of the suspects and of some of the neutral bank.

    Attributes:
        relative_change: sqrt(sum (a-b)^2 / sum a^2), 0 for an adapter without effect.
        cosine_similarity: of base and adapted activations.
        concept_contrast: mean relative change on the top concept over that on these neutral ones.
    """

    layer: str
    relative_change: float
    cosine_similarity: float
    concept_contrast: float


@dataclass(frozen=True)
class CoverageEvidence:
    """Key coverage and identity of one audited adapter, as `intake.adapter.Adapter` holds it.

    Attributes:
        config_sha256: of the `adapter_config.json` beside the weights; empty where there is none.
        readings: how many different meanings the bytes have for the loaders.
        refused_by: loaders that would not load the file, and why.
        optional: whether the image server may leave it out.
        weights_sha256: digest of the tensors alone, whatever the file's metadata says
            (`intake.weights`); empty in records of before that was made.
        same_weights_as: digests of other files with these weights that people rejected, or that the
            deny list names, as far as they are on record; sorted.
        kind: "lora", or "embedding" for a new word; then `matched_modules` counts text encoders.
        sketches: of its weights, one per reading (`audit.sketch`); not part of a decision, so the
            record keeps them in a table of their own.
    """

    sha256: str
    size_bytes: int
    format: str
    denoiser_strength: float
    text_encoder_strength: float
    weight_tensors: int
    mapped_tensors: int
    matched_modules: int
    unmapped: tuple[str, ...]
    config_sha256: str = ""
    readings: int = 1
    refused_by: Mapping[str, str] = field(default_factory=dict)
    optional: bool = False
    weights_sha256: str = ""
    same_weights_as: tuple[str, ...] = ()
    kind: str = "lora"
    sketches: tuple[bytes, ...] = field(
        default=(), repr=False, compare=False, metadata={"recorded": False}
    )


@dataclass(frozen=True)
class Machine:
    """What an audit ran on, as far as its numbers depend on it to the last bit.

    Attributes:
        materials_digest: lower-case hexadecimal sha256 over every probe and gradient.
        device: "cpu" with its instruction set, or the name of the GPU.
        dtype: of the base model.
        threads: of torch.
        batch_rows: probe rows per block of a forward pass, which depend on the threads.
        matmul_precision: of float32, as torch names it.
        versions: package to version.
    """

    materials_digest: str
    device: str
    dtype: str
    threads: int
    batch_rows: int
    matmul_precision: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Evidence:
    """Everything an audit found out about adapters that will be active together.

    Attributes:
        concepts: one entry per audited concept; empty when the audit stopped early.
        inconclusive: reasons, as (code, sentence), why the numbers cannot vouch for the
            adapters; empty when they can.
        stage_times_s: stage name to seconds.
        neutral_count: concepts in the neutral bank that the scores were compared with.
        heat_map: of the concept with the highest score; None where nothing was measured.
        calibration_digest: lower-case hexadecimal sha256 of the calibration that the p-values come
            from; empty without one.
        calibration_size: harmless adapters in that calibration.
        uses: every way of using the adapters that was judged; the first is all of them together.
        loaders: the loaders that the verdict speaks for; empty where none was named.
        restricted_to: sorted ids of the concepts that the question was restricted to; empty for
            the whole library.
        likeness_p_value: how often a harmless adapter has layers as unusual as the most unusual
            use's; None without a calibration. Unusual ones do not end at the screen.
        screen_miss_rate: the policy's, by which the audit ended early; None where none was run.
        machine: what it ran on; None where none was run, and in records of before that was kept.
        packed: further concepts that were measured (`audit.packed.whole` has them all); empty where
            `concepts` are all of them.
    """

    adapters: tuple[CoverageEvidence, ...]
    concepts: tuple[ConceptEvidence, ...]
    layers: tuple[LayerProfile, ...]
    inconclusive: tuple[tuple[str, str], ...]
    base_model: str
    base_digest: str
    library_digest: str
    kernel_backend: str
    engine_version: str
    neutral_count: int
    stage_times_s: Mapping[str, float]
    heat_map: HeatMap | None = None
    calibration_digest: str = ""
    calibration_size: int = 0
    uses: tuple[UseEvidence, ...] = ()
    loaders: tuple[str, ...] = ()
    restricted_to: tuple[str, ...] = ()
    likeness_p_value: float | None = None
    screen_miss_rate: float | None = None
    machine: Machine | None = None
    packed: str = field(default="", repr=False, metadata={"recorded": "where set"})
