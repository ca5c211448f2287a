"""How much of the files an audit can vouch for."""

from __future__ import annotations

from collections.abc import Sequence

from loragate_server.audit.evidence import CoverageEvidence
from loragate_server.audit.response import Adaptation
from loragate_server.audit.uses import Member


def coverage_evidence(member: Member) -> CoverageEvidence:
    """What the evidence says about one file: of several readings, the one that is worst covered."""
    adapter = min(
        member.readings, key=lambda one: (one.coverage.complete, one.coverage.mapped_tensors)
    )
    coverage, strength = adapter.coverage, member.strengths[0]
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
        readings=len(member.readings),
        refused_by=dict(member.refused),
        optional=member.optional,
        kind=adapter.kind,
    )


def coverage_doubts(adaptation: Adaptation) -> tuple[tuple[str, str], ...]:
    """Why adapters cannot be measured, as (code, sentence); empty when they can."""
    doubts = []
    for adapter, _ in adaptation:
        coverage, short = adapter.coverage, adapter.sha256[:12]
        loaders = f" As {', '.join(adapter.loaders)} read it." if adapter.loaders else ""
        if coverage.matched_modules == 0:
            doubts.append(
                (
                    "no_matching_layers",
                    f"Adapter {short} changes no layer of this base model; it was made for another "
                    f"one, or no loader is known to read its names.{loaders}",
                )
            )
        elif coverage.unmapped:
            names = ", ".join(coverage.unmapped[:3])
            doubts.append(
                (
                    "unmapped_keys",
                    f"Adapter {short} has {len(coverage.unmapped)} weight tensors that match no "
                    f"layer of this base model, for example {names}; another loader may use them."
                    f"{loaders}",
                )
            )
    return tuple(doubts)


def reading_doubts(members: Sequence[Member]) -> tuple[tuple[str, str], ...]:
    """What reading the files left open, as (code, sentence)."""
    return tuple(doubt for member in members for doubt in member.doubts)
