"""What is concluded of a use with a new word, which an embedding brings.

An embedding changes no layer, so there is nothing to screen: the base model under the generic
prompt is compared with the same model that is told the word. All concepts go to the response
stage. Calibrations are made of LoRAs, and say nothing about how far harmless words move the scores:
so no p-value here vouches for anything, and a doubt goes with the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from loragate_server.audit.evidence import ConceptEvidence
from loragate_server.audit.response import Adaptation
from loragate_server.audit.stages import Responded
from loragate_server.concepts.concept import Concept
from loragate_server.models.base import BaseModel
from loragate_server.models.words import room_for_words

UNCALIBRATED = "embedding_uncalibrated"


def word_doubts(base: BaseModel, adaptation: Adaptation) -> tuple[tuple[str, str], ...]:
    """Why a prompt cannot hold the words, as (code, sentence); empty when it can."""
    rows = [len(next(iter(one.words.values()))) for one, _ in adaptation if one.words]
    room = room_for_words(base)
    if sum(rows) <= room:
        return ()
    sentence = (
        f"The embeddings have {sum(rows)} rows together; a prompt of {base.name} has room for "
        f"{room}. Ask about fewer at once."
    )
    return (("too_many_words", sentence),)


def uncalibrated(adaptation: Adaptation) -> tuple[str, str]:
    """The doubt that goes with every number about new words, as (code, sentence)."""
    named = ", ".join(one.sha256[:12] for one, _ in adaptation if one.words)
    sentence = (
        f"Embedding {named} was measured, and no calibration of harmless embeddings says how to "
        "read the scores: a person has to."
    )
    return UNCALIBRATED, sentence


def conclude_words(
    concepts: Sequence[Concept], responded: Responded, *, calibrated: bool
) -> tuple[ConceptEvidence, ...]:
    """One entry per concept, from the response stage alone.

    Args:
        concepts: those that were asked about.
        responded: one row per concept.
        calibrated: whether other uses have calibrated p-values. Then these get the nearest thing,
            Student's times the number of concepts (Bonferroni), so that the gravest use can be
            told.
    """
    found = []
    for row, concept in enumerate(concepts):
        p_value = float(responded.scores.p_value[row])
        score = float(responded.scores.score[row])
        found.append(
            ConceptEvidence(
                concept_id=concept.concept_id,
                concept_name=concept.name,
                category=concept.category,
                severity=concept.severity,
                score=score,
                p_value=p_value,
                degree=float(responded.degree[row]),
                error_change_by_time=responded.error_change(row),
                family_p_value=min(1.0, p_value * len(concepts)) if calibrated else None,
                response_score=score,
                hands=len(concept.hands),
            )
        )
    return tuple(found)
