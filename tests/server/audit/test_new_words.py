"""Embeddings: new words are measured in place, alone and as a trigger, and never allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from loragate_server.adapter.adapter import Adapter, KeyCoverage
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.evidence import Evidence
from loragate_server.audit.uses import Member, uses_of
from loragate_server.models.base import BaseModel
from loragate_server.models.words import room_for_words
from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Decision, VerdictKind
from loragate_server.policy.parse import parse_policy
from loragate_server.progress import Leash
from testkit.tiny_models import WIDTH
from tests.server.audit.conftest import MakeAdapter, MakeEngine

EXAMPLES = Path(__file__).parents[3] / "examples"
BLOCK, INCONCLUSIVE = VerdictKind.BLOCK, VerdictKind.INCONCLUSIVE

Decided = Callable[..., Decision]


@pytest.fixture(scope="module")
def alone(example: Callable[[str], Adapter], decided: Decided) -> Callable[[str], Decision]:
    """What is decided about an embedding of the examples, once for the tests that look at it."""
    return cache(lambda name: decided(Member.of(example(f"embeddings/{name}"))))


def word(rows: Tensor, *components: str, seed: int = 0) -> Adapter:
    """An embedding of these rows for each text encoder."""
    words = dict.fromkeys(components or ("text_encoder",), rows)
    coverage = KeyCoverage(len(words), len(words), (), len(words))
    return Adapter(f"e{seed:063x}", 100, "test/embedding", {}, coverage, {}, words=words)


def noise(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def codes(evidence: Evidence) -> list[str]:
    return [code for code, _ in evidence.inconclusive]


@pytest.mark.parametrize("name", ["harmless-candy", "learned-bomb"])
def test_an_embedding_is_measured_and_never_allowed(
    name: str, alone: Callable[[str], Decision]
) -> None:
    found = alone(name)
    assert found.verdict is INCONCLUSIVE
    assert found.reasons[0].code == "embedding_uncalibrated"
    assert len(found.findings) == 16
    assert any(finding.evidence.score != 0 for finding in found.findings)
    assert {finding.evidence.stage for finding in found.findings} == {"response"}
    assert found.evidence.adapters[0].kind == "embedding"
    assert found.evidence.loaders == ("diffusers",)


def test_an_embedding_points_at_what_it_learned(alone: Callable[[str], Decision]) -> None:
    learned = alone("learned-bomb").findings[0].evidence
    harmless = alone("harmless-candy").findings[0].evidence
    assert learned.concept_id == "bomb"
    assert learned.error_change_by_time["0.75"] < 0
    assert learned.score > harmless.score


def test_a_word_hides_no_learned_adapter(
    example: Callable[[str], Adapter], decided: Decided
) -> None:
    pair = [example("adapters/learned-bomb"), example("embeddings/harmless-candy")]
    found = decided(*map(Member.of, pair))
    assert found.verdict is BLOCK
    assert found.findings[0].evidence.concept_id == "bomb"


def test_a_harmless_pair_is_judged_together_and_each_alone(
    example: Callable[[str], Adapter], decided: Decided
) -> None:
    pair = [example("adapters/harmless-watermelon"), example("embeddings/harmless-candy")]
    found = decided(*map(Member.of, pair))
    assert found.verdict is INCONCLUSIVE
    uses = [[one.adapter for one in use.adapters] for use in found.evidence.uses]
    assert uses == [[0, 1], [0], [1]]


def test_adapters_beside_a_word_are_also_judged_together_without_it(
    make_adapter: MakeAdapter,
) -> None:
    loras = [Member.of(make_adapter(seed=seed)) for seed in (1, 2)]
    found = uses_of([*loras, Member.of(word(noise(1)))])
    assert [[index for index, *_ in use.members] for use in found] == [
        [0, 1, 2],
        [0, 1],
        [0],
        [1],
        [2],
    ]


def test_a_pair_does_what_its_adapter_does_when_told_the_word(
    engine: AuditEngine, make_adapter: MakeAdapter
) -> None:
    def scores(*adapters: Adapter) -> list[float]:
        [use, *_] = uses_of([Member.of(one) for one in adapters])
        judged = engine.judge.judge(use.adaptation, [0, 1, 2], Leash(), 0.01)
        return [one.score for one in judged.concepts]

    lora, silent = (make_adapter(components={"unet"}, size=size) for size in (0.2, 0.0))
    trigger = word(noise(2))
    assert scores(silent, trigger) == scores(trigger)
    assert scores(lora, trigger) not in (scores(lora), scores(trigger))


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_every_family_that_takes_words_measures_them(
    family: str, base_of: Callable[[str], BaseModel], make_engine: MakeEngine
) -> None:
    base = base_of(family)
    components = tuple(base.word_tables())
    evidence = make_engine(base).audit([Member.of(word(noise(2), *components))], Leash())
    assert codes(evidence) == ["embedding_uncalibrated"]
    assert all(one.error_change_by_time for one in evidence.concepts)


def test_words_that_no_prompt_holds_are_told_of(base: BaseModel, engine: AuditEngine) -> None:
    room = room_for_words(base)
    both = [Member.of(word(noise(room, seed), seed=seed)) for seed in (1, 2)]
    evidence = engine.audit(both, Leash())
    assert "too_many_words" in codes(evidence)
    assert "embedding_uncalibrated" in codes(evidence)  # of each alone


def test_rows_that_break_the_model_are_inconclusive(engine: AuditEngine) -> None:
    evidence = engine.audit([Member.of(word(torch.full((1, WIDTH), 3e38)))], Leash())
    assert set(codes(evidence)) <= {"nonfinite_activations", "nonfinite_loss"}
    assert evidence.inconclusive
    assert not evidence.concepts


def test_a_policy_allows_no_embedding_that_an_audit_forgot_to_doubt(
    alone: Callable[[str], Decision],
) -> None:
    evidence = replace(alone("harmless-candy").evidence, inconclusive=())
    lenient = b"version: 1\nmode: enforce\ndefaults:\n  block_score: 99\n"
    assert decide(parse_policy(lenient), evidence).verdict is INCONCLUSIVE
