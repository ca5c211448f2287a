"""What a request must satisfy before any byte is read for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loragate_server.adapter.reference import (
    SHA256_REMEDY,
    SOURCES,
    AdapterReference,
    Strength,
    is_sha256,
)
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.bases import ServedBase
from loragate_server.gate.request import GateRequest
from loragate_server.policy.document import Limits
from loragate_server.policy.policy import Policy


def admit(request: GateRequest, policy: Policy, served: ServedBase, *, stored: bool) -> None:
    """Checks a request against policy and base model.

    Args:
        request: the question.
        policy: its limits bound count, strengths and sizes.
        served: the base model that the request names.
        stored: whether the bytes came as an upload, so that the one reference has no source.

    Raises:
        NoDecisionError: REQUEST_INVALID, STRENGTH_INVALID, LIBRARY_EMPTY, PERMISSION_DENIED,
            CONCEPT_UNKNOWN or FILE_TOO_LARGE.
    """
    _admit_adapters(request.adapters, policy.limits, stored=stored)
    for index, reference in enumerate(request.adapters):
        place = f"adapters[{index}]"
        for strength in reference.strengths:
            _admit_strength(f"{place}.denoiser_strength", strength.denoiser, policy)
            _admit_strength(f"{place}.text_encoder_strength", strength.text_encoder, policy)
        if reference.kind == "embedding" and reference.strengths != (Strength(),):
            raise _strength_of_a_word(place)
        if reference.inline_bytes is not None:
            admit_size(len(reference.inline_bytes), policy)
    if not served.concept_ids:
        raise NoDecisionError(
            ErrorReason.LIBRARY_EMPTY,
            "The concept library has no forbidden concept, so nothing can be decided.",
            remedy="Add a concept with `loragate-server concepts add` or CreateConcept.",
        )
    _admit_restriction(request, policy)
    served.require_concepts(request.concept_ids)


def admit_size(size_bytes: int, policy: Policy) -> None:
    """Checks a file size against the policy.

    Raises:
        NoDecisionError: FILE_TOO_LARGE.
    """
    allowed = policy.limits.max_file_bytes
    if size_bytes > allowed:
        raise NoDecisionError(
            ErrorReason.FILE_TOO_LARGE,
            f"The file has {size_bytes} bytes; the policy allows {allowed}.",
            remedy="Use a smaller adapter, or raise limits.max_file_bytes in the policy.",
            metadata={"allowed_bytes": str(allowed), "actual_bytes": str(size_bytes)},
        )


def _admit_restriction(request: GateRequest, policy: Policy) -> None:
    """Lets nobody choose what an adapter is looked at for, but those whom the policy names."""
    identity = request.caller.identity
    if not request.concept_ids or policy.may_restrict(identity):
        return
    raise NoDecisionError(
        ErrorReason.PERMISSION_DENIED,
        f"{identity or 'A caller without a name'} may not restrict a question to some concepts.",
        remedy="Ask about the whole library, or have the caller named in restrict.callers of the "
        "policy.",
        metadata={"field": "concept_ids"},
    )


def _admit_adapters(adapters: Sequence[AdapterReference], limits: Limits, *, stored: bool) -> None:
    if not adapters:
        raise _invalid("adapters", "The request names no adapter.", "Name at least one adapter.")
    if len(adapters) > limits.max_adapters:
        raise _invalid(
            "adapters",
            f"The request names {len(adapters)} adapters; the policy allows {limits.max_adapters}.",
            "Ask for fewer adapters at once, or raise limits.max_adapters in the policy.",
        )
    if stored and len(adapters) != 1:
        raise _invalid(
            "adapters",
            f"The upload names {len(adapters)} adapters.",
            "Upload one adapter at a time.",
        )
    for index, reference in enumerate(adapters):
        count = reference.source_count
        if count != (0 if stored else 1):
            raise _invalid(
                f"adapters[{index}].source",
                f"Adapter {index} has {count} sources.",
                "Leave the source unset; the upload is the source."
                if stored
                else f"Set exactly one of {SOURCES}.",
            )
        if reference.stored_sha256 is not None and not is_sha256(reference.stored_sha256):
            raise _invalid(
                f"adapters[{index}].stored_sha256",
                f"Adapter {index} names no valid sha256.",
                SHA256_REMEDY,
            )


def _admit_strength(field: str, strength: float, policy: Policy) -> None:
    low, high = policy.limits.strength_minimum, policy.limits.strength_maximum
    if math.isfinite(strength) and low <= strength <= high:
        return
    raise NoDecisionError(
        ErrorReason.STRENGTH_INVALID,
        f"Strength {strength:g} is not from {low:g} to {high:g}, where the policy has audits.",
        remedy=f"Use a strength from {low:g} to {high:g}, or widen limits in the policy.",
        metadata={
            "strength": f"{strength:g}",
            "minimum": f"{low:g}",
            "maximum": f"{high:g}",
            "field": field,
        },
    )


def _strength_of_a_word(place: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.STRENGTH_INVALID,
        f"{place} is an embedding, which is used as it is, and has a strength other than 1.",
        remedy="Leave the strengths of an embedding unset.",
        metadata={"field": f"{place}.denoiser_strength"},
    )


def _invalid(field: str, message: str, remedy: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.REQUEST_INVALID, message, remedy=remedy, metadata={"field": field}
    )
