"""Which audits end at the screen, and which concepts go on to the response stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.adapter.algebra import LowRank
from loragate_server.adapter.reference import Strength
from loragate_server.audit.calibration import Calibration, CalibrationError
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.materials import Materials
from loragate_server.audit.scores import AdapterScores
from loragate_server.audit.screen import screen
from loragate_server.audit.uses import Member
from loragate_server.concepts.gradients import (
    ConceptGradients,
)
from loragate_server.concepts.probes import ProbePlan
from loragate_server.models import BaseModel
from loragate_server.models.apply import layer_shape
from loragate_server.progress import Leash
from tests.server.audit.steps import step_towards

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def materials(base: BaseModel, gradients: ConceptGradients, make_probes: Make) -> Materials:
    generic = ProbePlan(pictures=1, times=(0.2,))
    named = ProbePlan(pictures=1, times=(0.4,), named=True)
    return Materials(make_probes(base, generic), make_probes(base, named), gradients)


def calibrated(materials: Materials, high: float) -> Materials:
    """With harmless adapters whose screen scores reach `high` at most."""
    ids = [c.concept_id for c in materials.probes.concepts[: materials.probes.forbidden_count]]
    harmless = tuple(
        AdapterScores(
            "a" * 64,
            dict.fromkeys(ids, high * index / 39),
            dict.fromkeys(ids, high * index / 39),
            dict.fromkeys(ids, (high * index / 39, high * index / 39)),
            ((0.0, 0.0),) * materials.probes.neutral_count,
            (index / 39 * high,) * 4 + (0.0,),
            {},
        )
        for index in range(40)
    )
    learned = tuple(
        dataclasses.replace(
            harmless[0], screen=dict.fromkeys(ids, 0.0) | {ids[0]: 50.0 + i}, learned=(ids[0],)
        )
        for i in range(9)
    )
    made = Calibration(materials.binding, harmless, learned, digest="c" * 64)
    return dataclasses.replace(materials, calibration=made)


def test_without_a_calibration_every_concept_goes_through_both_stages(
    base: BaseModel, materials: Materials, make_adapter: Make
) -> None:
    evidence = AuditEngine(base, materials).audit([Member.of(make_adapter(), Strength())], Leash())
    assert {concept.stage for concept in evidence.concepts} == {"response"}
    assert all(concept.family_p_value is None for concept in evidence.concepts)
    assert all(concept.screen_score is not None for concept in evidence.concepts)
    assert set(evidence.concepts[0].error_change_by_time) == {"0.20", "0.40, named"}
    assert evidence.calibration_digest == ""
    assert evidence.heat_map is not None
    assert set(evidence.stage_times_s) == {"screen", "response"}


def test_clear_adapters_end_at_the_screen(
    base: BaseModel, materials: Materials, make_adapter: Make
) -> None:
    engine = AuditEngine(base, calibrated(materials, 400.0))
    evidence = engine.audit([Member.of(make_adapter(), Strength())], Leash())
    assert {concept.stage for concept in evidence.concepts} == {"screen"}
    assert evidence.layers == ()
    assert set(evidence.stage_times_s) == {"screen"}
    assert evidence.calibration_digest == "c" * 64
    assert all(c.family_p_value is not None and c.family_p_value > 0.05 for c in evidence.concepts)


def test_only_suspects_go_on_to_the_response_stage(
    base: BaseModel, gradients: ConceptGradients, materials: Materials
) -> None:
    engine = AuditEngine(base, calibrated(materials, 3.0))
    learned = step_towards(base, gradients, 1, size=0.3)
    evidence = engine.audit([Member.of(learned, Strength())], Leash())
    stages = {concept.concept_id: concept.stage for concept in evidence.concepts}
    assert stages["dog"] == "response"
    assert "screen" in stages.values()
    assert evidence.heat_map is not None
    assert evidence.layers


def test_what_the_screen_cannot_see_in_whole_never_ends_there(
    base: BaseModel, materials: Materials, make_adapter: Make
) -> None:
    adapter = make_adapter(size=1e-3)
    ref, delta = next(iter(adapter.deltas.items()))
    biased = dataclasses.replace(delta, bias=torch.ones(delta.up.shape[0]))
    changed = dataclasses.replace(adapter, deltas={**adapter.deltas, ref: biased})
    engine = AuditEngine(base, calibrated(materials, 400.0))
    evidence = engine.audit([Member.of(changed, Strength())], Leash())
    assert {concept.stage for concept in evidence.concepts} == {"response"}


def test_weights_that_are_not_finite_are_inconclusive_at_the_screen(
    base: BaseModel, materials: Materials, make_adapter: Make
) -> None:
    adapter = make_adapter()
    ref = next(iter(adapter.deltas))
    broken = LowRank(torch.full((1, 8), torch.nan), torch.ones(8, 1), 1.0)
    shape = layer_shape(base.components[ref.component].get_submodule(ref.module)).weight.shape
    broken = LowRank(torch.full((1, shape[1]), torch.nan), torch.ones(shape[0], 1), 1.0)
    changed = dataclasses.replace(adapter, deltas={**adapter.deltas, ref: broken})
    evidence = AuditEngine(base, materials).audit([Member.of(changed, Strength())], Leash())
    assert [code for code, _ in evidence.inconclusive] == ["nonfinite_weights"]
    assert evidence.concepts == ()


def test_a_stale_calibration_stops_the_engine(base: BaseModel, materials: Materials) -> None:
    made = calibrated(materials, 3.0)
    assert made.calibration is not None
    stale = dataclasses.replace(
        made.calibration,
        binding=dataclasses.replace(made.calibration.binding, library_digest="9" * 64),
    )
    with pytest.raises(CalibrationError, match="library digest"):
        AuditEngine(base, dataclasses.replace(made, calibration=stale))


def test_a_layer_that_has_no_gradient_is_no_reason_to_allow(
    base: BaseModel, gradients: ConceptGradients, make_adapter: Make
) -> None:
    ref = ModuleRef(base.denoiser_component, "conv_in")
    fewer = dataclasses.replace(
        gradients, layers={k: v for k, v in gradients.layers.items() if k.module != "to_q"}
    )
    assert ref in fewer.layers
    some = next(iter(make_adapter().deltas))
    without = dataclasses.replace(
        gradients, layers={k: v for k, v in gradients.layers.items() if k != some}
    )
    assert not screen(base, without, [(make_adapter(), Strength())], "reference").complete
