"""Whoever was audited before leaves no trace in the numbers, though the base model answers once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from loragate_server.adapter.reference import Strength
from loragate_server.audit.engine import AuditEngine, AuditSettings
from loragate_server.audit.evidence import Evidence
from loragate_server.audit.materials import Materials
from loragate_server.audit.uses import Member
from loragate_server.concepts.probes import ProbePlan
from loragate_server.models import BaseModel
from loragate_server.progress import Leash

Make = Callable[..., Any]
Fresh = Callable[[], AuditEngine]


@pytest.fixture
def fresh(base: BaseModel, make_probes: Make) -> Fresh:
    """Makes an engine that has audited nothing, with generic and named rows in many blocks."""
    materials = Materials(make_probes(base), make_probes(base, ProbePlan(2, (0.3,), 8, named=True)))
    return lambda: AuditEngine(base, materials, AuditSettings(batch_rows=4))


@pytest.fixture
def questions(make_adapter: Make) -> list[list[Member]]:
    adapters = [make_adapter(seed=seed, components=["unet"]) for seed in range(3)]
    told_otherwise = make_adapter(seed=3, components=["text_encoder"])
    return [
        *([Member.of(adapter)] for adapter in adapters),
        [Member.of(told_otherwise)],
        [Member.of(adapters[0], Strength(0.5, 0.5)), Member.of(adapters[1])],
        [Member.of(make_adapter(seed=4))],
    ]


def numbers(found: Sequence[Evidence]) -> list[Evidence]:
    return [replace(one, stage_times_s={}) for one in found]


@pytest.mark.parametrize(
    "ids", [(), pytest.param(("ant",), marks=pytest.mark.long), ("bear", "ant")]
)
def test_no_number_depends_on_who_was_audited_before(
    fresh: Fresh, questions: list[list[Member]], ids: tuple[str, ...]
) -> None:
    ids = tuple(one.concept_id for one in fresh().probes.concepts[: len(ids)])
    exact = numbers([fresh().audit(members, Leash(), ids) for members in questions])
    one = fresh()
    assert numbers(one.audit_many(questions, Leash(), ids)) == exact
    assert numbers([one.audit(members, Leash(), ids) for members in questions]) == exact
    other = fresh()
    backwards = [other.audit(members, Leash(), ids) for members in reversed(questions)]
    assert numbers(backwards[::-1]) == exact


def test_where_a_rows_place_always_matters_the_base_model_is_asked_each_time(
    fresh: Fresh,
    questions: list[list[Member]],
    base: BaseModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    denoise = base.denoise

    def placed(noisy: torch.Tensor, times: torch.Tensor, told: Any) -> torch.Tensor:
        made = denoise(noisy, times, told)
        return made * (1 + 1e-6 * torch.arange(len(made)).reshape(-1, 1, 1, 1))

    monkeypatch.setattr(base, "denoise", placed)
    engine = fresh()
    assert "unequal results" in caplog.text
    twice = [engine.audit(questions[0], Leash()) for _ in range(2)]
    assert numbers(twice[:1]) == numbers(twice[1:])
