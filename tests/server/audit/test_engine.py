"""An audit as a whole, on tiny models of the real classes."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import Strength
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.evidence import ENGINE_VERSION, Evidence
from loragate_server.audit.profile import profiled_layers
from loragate_server.audit.uses import Member
from loragate_server.concepts.probes import ProbePlan, ProbeSet
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.models import BaseModel
from loragate_server.models.apply import layer_shape
from loragate_server.models.base import per_row_loss
from loragate_server.progress import Leash
from testkit.tiny_models import FAMILIES

Make = Callable[..., Any]


def members(used: Sequence[tuple[Adapter, Strength]]) -> list[Member]:
    return [Member.of(adapter, strength) for adapter, strength in used]


def together(engine: AuditEngine, used: Sequence[tuple[Adapter, Strength]]) -> Evidence:
    """What the adapters show as a sum alone, without a look at each one."""
    judged = engine.judge.judge(used, range(3), Leash(), 0.01)
    return dataclasses.replace(engine.audit(members(used), Leash()), concepts=judged.concepts)


def numbers(evidence: Evidence) -> torch.Tensor:
    """Scores and error changes of an audit, float64 [concepts, 1 + times]."""
    assert not evidence.inconclusive
    return torch.tensor(
        [[c.score, *c.error_change_by_time.values()] for c in evidence.concepts],
        dtype=torch.float64,
    )


def close(first: Evidence, second: Evidence) -> None:
    torch.testing.assert_close(numbers(first), numbers(second), rtol=2e-3, atol=2e-4)


@pytest.fixture(params=[1, 2, 3], ids=lambda count: f"{count} threads")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def changes_nothing(evidence: Evidence) -> None:
    assert len(evidence.concepts) == 3
    for concept in evidence.concepts:
        assert (concept.score, concept.p_value, concept.degree) == (0.0, 0.5, 0.0)
        assert set(concept.error_change_by_time.values()) == {0.0}
    for layer in evidence.layers:
        assert layer.relative_change == 0.0
        assert layer.concept_contrast == 1.0
        assert layer.cosine_similarity == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_of_zeros_changes_exactly_nothing(
    family: str, base_of: Make, make_engine: Make, make_adapter: Make
) -> None:
    base = base_of(family)
    zero = make_adapter(base, size=0.0)
    assert {ref.component for ref in zero.deltas} == set(base.components)
    changes_nothing(make_engine(base).audit([Member.of(zero, Strength())], Leash()))


@pytest.mark.parametrize("rows", [3, 8, 100])
def test_an_adapter_of_zeros_changes_exactly_nothing_at_any_batch_size_and_thread_count(
    rows: int, threads: int, make_engine: Make, make_adapter: Make
) -> None:
    engine = make_engine(plan=ProbePlan(pictures=1), batch_rows=rows)
    changes_nothing(engine.audit([Member.of(make_adapter(size=0.0), Strength())], Leash()))


def test_strength_zero_changes_exactly_nothing(engine: AuditEngine, make_adapter: Make) -> None:
    changes_nothing(engine.audit([Member.of(make_adapter(), Strength(0.0, 0.0))], Leash()))


def with_changed_weights(
    base: BaseModel, adapters: Sequence[tuple[Adapter, Strength]]
) -> BaseModel:
    """A copy of the base model into which the adapters were merged."""
    changed = copy.deepcopy(base)
    for adapter, strength in adapters:
        for ref, delta in adapter.deltas.items():
            layer = base.components[ref.component].get_submodule(ref.module)
            denoiser = ref.component == base.denoiser_component
            how_much = strength.denoiser if denoiser else strength.text_encoder
            target = changed.components[ref.component].get_submodule(ref.module)
            target.weight.data += delta.dense(layer_shape(layer), how_much)
    return changed


def predictions(model: BaseModel, probes: ProbeSet) -> list[torch.Tensor]:
    """What the model predicts for the rows of every concept."""
    told = model.encode_prompts([probes.plan.prompt])
    told = told.rows(torch.zeros(probes.plan.rows, dtype=torch.long))
    with torch.inference_mode():
        return [model.denoise(noisy, probes.times, told) for noisy in probes.noisy]


def by_hand(
    base: BaseModel, probes: ProbeSet, adapters: Sequence[tuple[Adapter, Strength]]
) -> torch.Tensor:
    """The mean relative error change, float64 [forbidden, times], with the weights changed."""
    losses = [
        torch.stack(
            [
                per_row_loss(prediction, target).double()
                for prediction, target in zip(
                    predictions(model, probes), probes.target, strict=True
                )
            ]
        )
        for model in (base, with_changed_weights(base, adapters))
    ]
    change = (losses[1] / losses[0]).log().reshape(-1, probes.plan.pictures, len(probes.plan.times))
    return change.mean(1).expm1()[: probes.forbidden_count]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_error_change_is_that_of_a_model_whose_weights_were_changed(
    family: str, base_of: Make, make_engine: Make, make_adapter: Make
) -> None:
    base = base_of(family)
    engine = make_engine(base)
    used = [(make_adapter(base), Strength(0.8, -0.5))]
    measured = numbers(engine.audit(members(used), Leash()))[:, 1:]
    assert measured.abs().max() > 0.01
    torch.testing.assert_close(
        measured, by_hand(base, engine.probes, used), rtol=2e-3, atol=2e-4, check_dtype=False
    )


def test_adapters_that_are_active_together_are_measured_together(
    engine: AuditEngine, make_adapter: Make
) -> None:
    used = [
        (make_adapter(seed=1), Strength(0.7, 0.3)),
        (make_adapter(seed=2), Strength(-0.4, 1.1)),
    ]
    torch.testing.assert_close(
        numbers(together(engine, used))[:, 1:],
        by_hand(engine.base, engine.probes, used),
        rtol=2e-3,
        atol=2e-4,
        check_dtype=False,
    )
    evidence = engine.audit(members(used), Leash())
    assert [one.sha256[-1] for one in evidence.adapters] == ["1", "2"]
    assert [one.denoiser_strength for one in evidence.adapters] == [0.7, -0.4]
    assert [one.text_encoder_strength for one in evidence.adapters] == [0.3, 1.1]
    close(evidence, engine.audit(members(used[::-1]), Leash()))
    close(together(engine, used), together(engine, used[::-1]))
    alone = numbers(engine.audit(members(used[:1]), Leash()))
    assert (alone - numbers(together(engine, used))).abs().max() > 0.01


def test_an_adapter_and_its_opposite_together_change_nothing(
    engine: AuditEngine, make_adapter: Make
) -> None:
    adapter = make_adapter(components=("unet",))
    both = [(adapter, Strength(1.0)), (adapter, Strength(-1.0))]
    alone = numbers(engine.audit(members(both[:1]), Leash()))[:, 1:].abs().max()
    assert alone > 0.01
    assert numbers(together(engine, both))[:, 1:].abs().max() < 1e-5


@pytest.mark.parametrize("rows", [1, 7, 44, 1000])
def test_the_batch_size_changes_nothing_but_rounding(
    rows: int, engine: AuditEngine, make_engine: Make, make_adapter: Make
) -> None:
    used = [(make_adapter(), Strength())]
    close(
        engine.audit(members(used), Leash()),
        make_engine(batch_rows=rows).audit(members(used), Leash()),
    )


def test_an_audit_repeats_bit_for_bit(engine: AuditEngine, make_adapter: Make) -> None:
    used = [(make_adapter(), Strength())]
    first, second = (engine.audit(members(used), Leash()) for _ in range(2))
    assert first.concepts == second.concepts
    assert first.layers == second.layers


def test_an_audit_leaves_the_base_model_as_it_was(engine: AuditEngine, make_adapter: Make) -> None:
    before = {
        name: tensor.clone()
        for component in engine.base.components.values()
        for name, tensor in component.state_dict().items()
    }
    engine.audit([Member.of(make_adapter(), Strength())], Leash())
    for component in engine.base.components.values():
        for name, tensor in component.state_dict().items():
            if name in before and tensor.shape == before[name].shape:
                assert torch.equal(tensor, before[name])


def test_concept_ids_restrict_the_audit_and_change_no_score(
    engine: AuditEngine, make_adapter: Make
) -> None:
    used = [(make_adapter(), Strength())]
    every = {one.concept_id: one for one in engine.audit(members(used), Leash()).concepts}
    assert [*every] == ["cat", "dog", "fox"]
    some = engine.audit(members(used), Leash(), ["fox", "cat", "fox"])
    assert [one.concept_id for one in some.concepts] == ["cat", "fox"]
    assert some.neutral_count == 8
    for one in some.concepts:
        assert one.score == pytest.approx(every[one.concept_id].score, rel=2e-3, abs=2e-4)


@pytest.mark.parametrize("concept_id", ["wolf", "neutral-0", ""])
def test_a_concept_that_is_not_forbidden_in_the_library_is_refused(
    concept_id: str, engine: AuditEngine, make_adapter: Make
) -> None:
    with pytest.raises(NoDecisionError) as error:
        engine.audit([Member.of(make_adapter(), Strength())], Leash(), ["cat", concept_id])
    assert error.value.reason is ErrorReason.CONCEPT_UNKNOWN
    assert error.value.metadata == {"concept_id": concept_id}


def test_the_evidence_says_what_was_measured_with_what(
    engine: AuditEngine, make_adapter: Make
) -> None:
    evidence = engine.audit([Member.of(make_adapter(), Strength())], Leash())
    assert evidence.base_model == "tiny-sd"
    assert evidence.base_digest == engine.base.digest
    assert evidence.library_digest == "1" * 64
    assert evidence.kernel_backend == "reference"
    assert evidence.engine_version == ENGINE_VERSION
    assert evidence.neutral_count == 8
    assert evidence.stage_times_s["response"] > 0
    [coverage] = evidence.adapters
    assert (coverage.format, coverage.size_bytes, coverage.unmapped) == ("test/lora", 1000, ())
    assert coverage.matched_modules * 2 == coverage.weight_tensors == coverage.mapped_tensors
    cat = evidence.concepts[0]
    assert (cat.concept_name, cat.category, cat.severity) == ("Cat", "animal", "high")
    assert 0 <= cat.p_value <= 1
    assert 0 <= cat.degree <= 100


def test_there_is_a_profile_by_layer_and_by_time(engine: AuditEngine, make_adapter: Make) -> None:
    evidence = engine.audit([Member.of(make_adapter(), Strength())], Leash())
    assert [*evidence.concepts[0].error_change_by_time] == ["0.20", "0.60"]
    assert [layer.layer for layer in evidence.layers] == [*profiled_layers(engine.base.denoiser)]
    assert len(evidence.layers) > 8
    for layer in evidence.layers:
        # the first layer comes before any attention
        assert (layer.relative_change > 0) == (layer.layer != "down_blocks.0.resnets.0")
        assert -1 <= layer.cosine_similarity <= 1
        assert math.isfinite(layer.concept_contrast)


def test_the_profile_is_that_of_a_model_whose_weights_were_changed(
    engine: AuditEngine, make_adapter: Make
) -> None:
    used = [(make_adapter(), Strength())]
    evidence = engine.audit(members(used), Leash())
    outputs: list[list[torch.Tensor]] = []
    layer = "up_blocks.0.resnets.1"
    for model in (copy.deepcopy(engine.base), with_changed_weights(engine.base, used)):
        seen: list[torch.Tensor] = []
        block = model.denoiser.get_submodule(layer)
        block.register_forward_hook(lambda *given, seen=seen: seen.append(given[-1].double()))
        predictions(model, engine.probes)
        outputs.append(seen)
    base, adapted = (torch.stack(each).flatten(1) for each in outputs)
    change = (adapted - base).square().sum(1)
    by_concept = (change / base.square().sum(1)).sqrt()
    top = max(range(3), key=lambda index: evidence.concepts[index].score)
    [found] = [one for one in evidence.layers if one.layer == layer]
    assert found.relative_change == pytest.approx(
        float((change.sum() / base.square().sum()).sqrt()), rel=1e-3
    )
    assert found.cosine_similarity == pytest.approx(
        float((base * adapted).sum() / (base.norm() * adapted.norm())), rel=1e-4
    )
    assert found.concept_contrast == pytest.approx(
        float(by_concept[top] / by_concept[3:].mean()), rel=1e-3
    )


def test_only_layers_after_the_change_are_changed(engine: AuditEngine, make_adapter: Make) -> None:
    last = "up_blocks.1.attentions.1.transformer_blocks.0"
    evidence = engine.audit(
        [Member.of(make_adapter(ending=(f"{last}.attn1.to_q",)), Strength())], Leash()
    )
    assert [layer.layer for layer in evidence.layers if layer.relative_change > 0] == [last]


def test_more_strength_changes_the_layers_more(engine: AuditEngine, make_adapter: Make) -> None:
    adapter = make_adapter(components=("unet",), size=0.02)
    weak, strong = (
        engine.audit([Member.of(adapter, Strength(strength))], Leash()).layers
        for strength in (0.1, 1.0)
    )
    pairs = [(a.relative_change, b.relative_change) for a, b in zip(weak, strong, strict=True)]
    assert all(b > 5 * a for a, b in pairs if a > 0)
    assert sum(a > 0 for a, _ in pairs) > 3


def test_probes_of_another_base_model_are_refused(base_of: Make, make_probes: Make) -> None:
    with pytest.raises(ValueError, match="the probes were built for base"):
        AuditEngine(base_of("sd"), make_probes(base_of("sdxl")))


def test_one_time_and_one_picture_are_enough(make_engine: Make, make_adapter: Make) -> None:
    engine = make_engine(plan=ProbePlan(pictures=1, times=(0.16,)))
    evidence = engine.audit([Member.of(make_adapter(), Strength())], Leash())
    assert [*evidence.concepts[0].error_change_by_time] == ["0.16"]
    assert all(math.isfinite(concept.score) for concept in evidence.concepts)
