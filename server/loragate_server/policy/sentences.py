"""What a decision says about a concept: in which use of the adapters, and with which numbers."""

from __future__ import annotations

from collections.abc import Sequence

from loragate_server.audit.evidence import (
    ConceptEvidence,
    CoverageEvidence,
    Evidence,
    UsedAdapter,
    UseEvidence,
)

_SHOWN_DIGITS = 12
_NAMED = 3


def use_of(evidence: Evidence, concept: ConceptEvidence) -> UseEvidence:
    """The use that a concept's numbers are of.

    Evidence that was recorded before uses were told apart is about all adapters together.
    """
    if 0 <= concept.use < len(evidence.uses):
        return evidence.uses[concept.use]
    every = tuple(
        UsedAdapter(index, one.denoiser_strength, one.text_encoder_strength)
        for index, one in enumerate(evidence.adapters)
    )
    return UseEvidence(every, evidence.loaders)


def members_of(evidence: Evidence, use: UseEvidence) -> tuple[CoverageEvidence, ...]:
    """The adapters of a use."""
    return tuple(evidence.adapters[one.adapter] for one in use.adapters)


def own_loaders(evidence: Evidence, use: UseEvidence) -> tuple[str, ...]:
    """The loaders that a use is of, where not all of the verdict's loaders use the files so."""
    return () if set(use.loaders) >= set(evidence.loaders) else use.loaders


def use_words(evidence: Evidence, use: UseEvidence) -> str:
    """Which adapters, at which strengths, alone or together, and as which loaders read them.

    For example "Adapter 0123456789ab alone at strength 1, as comfyui reads it,".
    """
    named = [
        f"{adapter.sha256[:_SHOWN_DIGITS]} at strength {_strength(used)}"
        for adapter, used in zip(members_of(evidence, use), use.adapters, strict=True)
    ]
    if not named:
        return "The adapters"
    if len(named) > 1:
        words = f"Adapters {', '.join(named[:-1])} and {named[-1]} together"
    elif len(evidence.adapters) > 1:
        words = f"Adapter {named[0].replace(' at', ' alone at', 1)}"
    else:
        words = f"Adapter {named[0]}"
    loaders = own_loaders(evidence, use)
    if loaders:
        words += f", as {' and '.join(loaders)} read{'s' * (len(loaders) == 1)} "
        words += "them," if len(named) > 1 else "it,"
    return words


def concept_sentences(
    evidence: Evidence, concept: ConceptEvidence, adjusted_p: float, what: str, more: str = ""
) -> tuple[str, str]:
    """The sentence about a concept with numbers, and the one without.

    Args:
        evidence: that the concept is part of.
        concept: what was measured.
        adjusted_p: the p-value over all concepts.
        what: for example "have learned".
        more: a further sentence with numbers.
    """
    use = use_of(evidence, concept)
    if what.startswith("have") and len(use.adapters) == 1:
        what = f"has{what.removeprefix('have')}"
    said = (
        f"{use_words(evidence, use)} {what} {concept.concept_name!r} ({concept.concept_id}, "
        f"{concept.category}, {concept.severity})"
    )
    numbers = (
        f"score {concept.score:.2f}, adjusted p-value {adjusted_p:.3g}, "
        f"degree {concept.degree:.0f} of 100"
    )
    return f"{said}: {numbers}.{more and ' '}{more}", f"{said}."


def invalid_sentences(concept: ConceptEvidence, wrong: str) -> tuple[str, str]:
    """The sentence about a concept whose numbers cannot be used, and the one without them."""
    said = f"{concept.concept_name!r} ({concept.concept_id}) was not measured"
    return f"{said}: {wrong}.", f"{said}."


def clear_sentences(nearest: ConceptEvidence | None, concepts: int) -> tuple[str, str]:
    """The sentence about concepts of which none was found, and the one without numbers.

    Args:
        nearest: the concept with the highest score; None where none was audited.
        concepts: how many were audited.
    """
    if nearest is None:
        return "No concept was audited.", "No concept was audited."
    said = f"None of {concepts} concepts reached a threshold"
    near = f"the nearest is {nearest.concept_name!r} with a score of {nearest.score:.2f}"
    return f"{said}; {near}.", f"{said}."


def uncalibrated_sentence(unknown: Sequence[ConceptEvidence], concepts: int) -> str:
    """The sentence about concepts whose p-values rest on no harmless adapter.

    Args:
        unknown: those concepts, at least one.
        concepts: how many were audited.
    """
    if len(unknown) == concepts:
        what = "No concept is calibrated"
    else:
        names = ", ".join(one.concept_id for one in unknown[:_NAMED])
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        what = f"Uncalibrated: {names}{more}"
    return f"{what}; p-values there are approximate and promise no rate."


def _strength(used: UsedAdapter) -> str:
    if used.denoiser_strength == used.text_encoder_strength:
        return f"{used.denoiser_strength:g}"
    return f"{used.denoiser_strength:g} (text encoders {used.text_encoder_strength:g})"
