"""Every code of a reason, and what is said to those who may not see measured numbers.

A number helps whoever changes a file until it passes. So a sentence with measured numbers has a
second one without, and a code that is not known here is told in general words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from loragate_server.policy.decision import Reason

REASON_CODES: Final[Mapping[str, str | None]] = {
    # of decide
    "no_concept_learned": "No concept reached a threshold.",
    "concept_suspected": "The adapter may have learned a forbidden concept.",
    "concept_learned": "The adapter has learned a forbidden concept.",
    "measurement_invalid": "A concept was not measured.",
    # of reviews, and of what is on record about the same files
    "review_approved": None,
    "review_rejected": None,
    "known_bad": None,
    "copy_of_blocked": "One or several of the adapters together are a blocked one again.",
    "part_of_blocked": "One or several of the adapters together hold a blocked one.",
    "sums_not_compared": "Not every sum of the adapters was held against blocked ones.",
    # of the lists
    "allow_listed": None,
    "allow_list_lapsed": None,
    "allow_list_config": None,
    "deny_listed": None,
    # of evidence that cannot vouch for the adapters
    "not_audited": None,
    "nothing_audited": None,
    "no_layer_matched": None,
    "no_matching_layers": None,
    "unmapped_keys": None,
    "too_many_uses": None,
    "too_many_words": None,
    "embedding_uncalibrated": None,
    "no_loader": None,
    "loader_unknown": None,
    "other_family": None,
    "unknown_kind": None,
    "shape_misfit": None,
    "no_concepts_audited": None,
    "no_neutral_bank": None,
    "nonfinite_weights": None,
    "nonfinite_activations": None,
    "nonfinite_loss": None,
    # of the question and of the policy's mode
    "restricted_question": None,
    "uncalibrated": None,
    "pilot_mode": None,
}
"""By code the sentence without numbers; None where the reason's own holds no measured number."""

_UNKNOWN = "The audit has a reason that it tells only to callers who may see scores."


def told_without_numbers(reason: Reason) -> str:
    """The sentence for callers who may not see measured numbers."""
    if reason.plain:
        return reason.plain
    general = REASON_CODES.get(reason.code, _UNKNOWN)
    return reason.message if general is None else general
