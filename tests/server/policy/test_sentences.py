"""The sentence about a concept says in which use of which adapters it was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loragate_server.audit.evidence import UsedAdapter, UseEvidence
from loragate_server.policy.decide import decide
from loragate_server.policy.sentences import use_words

A, B = "a" * 64, "b" * 64
LOADERS = ("diffusers", "comfyui", "sglang")


def used(*strengths: tuple[int, float, float], loaders: tuple[str, ...] = LOADERS) -> UseEvidence:
    return UseEvidence(tuple(UsedAdapter(*one) for one in strengths), loaders)


@pytest.mark.parametrize(
    ("uses", "words"),
    [
        (used((0, 1.0, 1.0)), "Adapter aaaaaaaaaaaa alone at strength 1"),
        (used((1, -0.5, -0.5)), "Adapter bbbbbbbbbbbb alone at strength -0.5"),
        (
            used((0, 1.0, 1.0), (1, 2.0, 0.25)),
            "Adapters aaaaaaaaaaaa at strength 1 and bbbbbbbbbbbb at strength 2 "
            "(text encoders 0.25) together",
        ),
        (
            used((0, 1.0, 1.0), loaders=("comfyui",)),
            "Adapter aaaaaaaaaaaa alone at strength 1, as comfyui reads it,",
        ),
        (
            used((0, 1.0, 1.0), (1, 1.0, 1.0), loaders=("diffusers", "sglang")),
            "Adapters aaaaaaaaaaaa at strength 1 and bbbbbbbbbbbb at strength 1 together, "
            "as diffusers and sglang read them,",
        ),
        (used((0, 1.0, 1.0), loaders=()), "Adapter aaaaaaaaaaaa alone at strength 1, as"),
    ],
)
def test_a_use_is_named(
    uses: UseEvidence,
    words: str,
    evidence: Callable[..., Any],
    adapter: Callable[..., Any],
    concept: Callable[..., Any],
) -> None:
    if not uses.loaders:
        words, loaders = words.removesuffix(", as"), ()
    else:
        loaders = LOADERS
    about = evidence(
        concept(9.0),
        adapters=(adapter(A), adapter(B, denoiser_strength=2.0)),
        uses=(uses,),
        loaders=loaders,
    )
    assert use_words(about, uses) == words


def test_the_reason_names_the_member_that_has_learned_the_concept(
    evidence: Callable[..., Any],
    adapter: Callable[..., Any],
    concept: Callable[..., Any],
    policy: Callable[..., Any],
) -> None:
    together, alone = used((0, 1.0, 1.0), (1, 2.0, 2.0)), used((0, 1.0, 1.0))
    about = evidence(concept(9.0, use=1), adapters=(adapter(A), adapter(B)), uses=(together, alone))
    reason = decide(policy(), about).reasons[0]
    assert reason.message.startswith("Adapter aaaaaaaaaaaa alone at strength 1 has learned 'Cat'")
    assert "score 9.00" in reason.message
    assert reason.plain == (
        "Adapter aaaaaaaaaaaa alone at strength 1 has learned 'Cat' (cat, character, high)."
    )


def test_several_members_have_learned_it_together(
    evidence: Callable[..., Any],
    adapter: Callable[..., Any],
    concept: Callable[..., Any],
    policy: Callable[..., Any],
) -> None:
    together = used((0, 1.0, 1.0), (1, 2.0, 2.0))
    about = evidence(concept(9.0), adapters=(adapter(A), adapter(B)), uses=(together,))
    assert "together have learned 'Cat'" in decide(policy(), about).reasons[0].plain


@pytest.mark.parametrize("use", [0, 7, -1])
def test_evidence_from_before_uses_were_told_apart_is_about_all_adapters(
    use: int,
    evidence: Callable[..., Any],
    adapter: Callable[..., Any],
    concept: Callable[..., Any],
    policy: Callable[..., Any],
) -> None:
    about = evidence(
        concept(9.0, use=use), adapters=(adapter(A), adapter(B, denoiser_strength=0.5))
    )
    said = decide(policy(), about).reasons[0].plain
    assert said.startswith("Adapters aaaaaaaaaaaa at strength 1 and bbbbbbbbbbbb at strength 0.5")


def test_evidence_about_no_adapter_has_a_sentence_still(
    evidence: Callable[..., Any], concept: Callable[..., Any], policy: Callable[..., Any]
) -> None:
    said = [one.plain for one in decide(policy(), evidence(concept(9.0), adapters=())).reasons]
    assert "The adapters have learned 'Cat' (cat, character, high)." in said
