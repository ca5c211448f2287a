"""How much of the files an audit can vouch for."""

from __future__ import annotations

from collections.abc import Sequence

from loragate_server.audit.evidence import CoverageEvidence
from loragate_server.intake.adapter import Adapter, Strength


def coverage_evidence(adapter: Adapter, strength: Strength) -> CoverageEvidence:
    """What the evidence says about one file."""
    coverage = adapter.coverage
    return CoverageEvidence(
        sha256=adapter.sha256,
        size_bytes=adapter.size_bytes,
        format=adapter.format,
        denoiser_strength=strength.denoiser,
        text_encoder_strength=strength.text_encoder,
        weight_tensors=coverage.weight_tensors,
        mapped_tensors=coverage.mapped_tensors,
        matched_modules=coverage.matched_modules,
        unmapped=coverage.unmapped,
        config_sha256=adapter.config_sha256,
    )


def coverage_doubts(
    adapters: Sequence[tuple[Adapter, Strength]],
) -> tuple[tuple[str, str], ...]:
    """Why adapters cannot be measured, as (code, sentence); empty when they can."""
    doubts = []
    for adapter, _ in adapters:
        coverage, short = adapter.coverage, adapter.sha256[:12]
        if coverage.matched_modules == 0:
            doubts.append(
                (
                    "no_matching_layers",
                    f"Adapter {short} changes no layer of this base model; it was made for another "
                    "one, or its key names are not understood.",
                )
            )
        elif coverage.unmapped:
            names = ", ".join(coverage.unmapped[:3])
            doubts.append(
                (
                    "unmapped_keys",
                    f"Adapter {short} has {len(coverage.unmapped)} weight tensors that match no "
                    f"layer of this base model, for example {names}; another loader may use them.",
                )
            )
    return tuple(doubts)
