"""Audits that end early: callers who go, numbers that mean nothing, files not understood."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from loragate_kernels import BackendUnavailableError
from loragate_server.adapter.adapter import Adapter, KeyCoverage, ModuleRef
from loragate_server.adapter.algebra import LowRank
from loragate_server.adapter.reference import Strength
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.uses import Member
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.progress import Leash

Make = Callable[..., Any]
QUERY = ModuleRef("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q")


class Counted:
    """A delta that counts its uses and can do something at one of them. Changes nothing."""

    rank = None

    def __init__(self, at: int, action: Callable[[], None]) -> None:
        self.uses = 0
        self._at = at
        self._action = action

    def response(self, module_input: torch.Tensor, layer: Any, strength: float) -> torch.Tensor:
        self.uses += 1
        if self.uses == self._at:
            self._action()
        return module_input.new_zeros(*module_input.shape[:-1], len(layer.weight))

    def dense(self, layer: Any, strength: float) -> torch.Tensor:
        return torch.zeros_like(layer.weight)


def with_delta(adapter: Adapter, ref: ModuleRef, delta: Any) -> Adapter:
    assert ref in adapter.deltas
    return dataclasses.replace(adapter, deltas={**adapter.deltas, ref: delta})


def forwards(engine: AuditEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every forward pass of the denoiser that is begun."""
    begun: list[int] = []
    denoise = engine.base.denoise

    def counting(noisy: Any, times: Any, conditioning: Any) -> Any:
        begun.append(len(noisy))
        return denoise(noisy, times, conditioning)

    monkeypatch.setattr(engine.base, "denoise", counting)
    return begun


def test_a_deadline_that_has_passed_stops_before_the_first_forward_pass(
    engine: AuditEngine, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = forwards(engine, monkeypatch)
    with pytest.raises(NoDecisionError) as error:
        engine.audit([Member.of(make_adapter(), Strength())], Leash(time.monotonic() - 1))
    assert error.value.reason is ErrorReason.DEADLINE_EXCEEDED
    assert begun == []


def test_a_caller_who_goes_stops_the_audit_within_a_forward_pass(
    engine: AuditEngine, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = forwards(engine, monkeypatch)
    leash = Leash()
    first = Counted(2, leash.cancel)
    adapter = with_delta(make_adapter(), QUERY, first)
    later = ModuleRef("unet", "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q")
    second = Counted(0, lambda: None)
    with pytest.raises(NoDecisionError) as error:
        engine.audit([Member.of(with_delta(adapter, later, second), Strength())], leash)
    assert error.value.reason is ErrorReason.CANCELLED
    assert len(begun) == 2
    assert (first.uses, second.uses) == (2, 1)


def test_a_deadline_that_passes_during_the_audit_stops_it(
    engine: AuditEngine, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = forwards(engine, monkeypatch)
    leash = Leash(time.monotonic() + 60)

    def pass_it() -> None:
        leash.deadline_monotonic_s = time.monotonic() - 1

    adapter = with_delta(make_adapter(), QUERY, Counted(1, pass_it))
    with pytest.raises(NoDecisionError) as error:
        engine.audit([Member.of(adapter, Strength())], leash)
    assert error.value.reason is ErrorReason.DEADLINE_EXCEEDED
    assert len(begun) == 1


def test_an_engine_works_on_after_an_audit_that_was_stopped(
    engine: AuditEngine, make_adapter: Make
) -> None:
    used = [Member.of(make_adapter(), Strength())]
    before = engine.audit(used, Leash())
    leash = Leash()
    leash.cancel()
    with pytest.raises(NoDecisionError):
        engine.audit(used, leash)
    assert engine.audit(used, Leash()).concepts == before.concepts


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_an_error_in_the_middle_comes_through_and_leaves_the_model_clean(
    component: str, engine: AuditEngine, make_adapter: Make
) -> None:
    def fail() -> None:
        raise MemoryError("no room")

    adapter = make_adapter()
    ref = [ref for ref in adapter.deltas if ref.component == component][-1]
    broken = with_delta(adapter, ref, Counted(1, fail))
    with pytest.raises(MemoryError, match="no room"):
        engine.audit([Member.of(broken, Strength())], Leash())
    # the fixture no_hooks_are_left looks at the model after this


def test_a_delta_of_a_layer_that_does_not_exist_leaves_the_model_clean(
    engine: AuditEngine, make_adapter: Make
) -> None:
    adapter = make_adapter()
    deltas = {**adapter.deltas, ModuleRef("unet", "no.such.layer"): adapter.deltas[QUERY]}
    with pytest.raises(AttributeError):
        engine.audit([Member.of(dataclasses.replace(adapter, deltas=deltas), Strength())], Leash())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_activations_that_are_not_finite_make_the_audit_inconclusive_and_name_the_layer(
    value: float, engine: AuditEngine, make_adapter: Make
) -> None:
    adapter = make_adapter(components=("unet",))
    delta: Any = adapter.deltas[QUERY]
    poisoned = LowRank(delta.down * value, delta.up, 1e30)
    evidence = engine.audit([Member.of(with_delta(adapter, QUERY, poisoned), Strength())], Leash())
    [(code, sentence)] = evidence.inconclusive
    assert code == "nonfinite_activations"
    assert "mid_block.attentions.0.transformer_blocks.0 " in sentence
    assert evidence.concepts == evidence.layers == ()


def test_a_loss_that_is_not_finite_makes_the_audit_inconclusive(
    engine: AuditEngine, make_adapter: Make
) -> None:
    adapter = make_adapter(components=("unet",))
    last = engine.base.denoiser.get_submodule("conv_out")
    delta = LowRank(
        torch.full((1, last.in_channels, 3, 3), float("nan")), torch.ones(4, 1, 1, 1), 1.0
    )
    deltas = {ModuleRef("unet", "conv_out"): delta}
    broken = dataclasses.replace(adapter, deltas=deltas)
    evidence = engine.audit([Member.of(broken, Strength())], Leash())
    assert [code for code, _ in evidence.inconclusive] == ["nonfinite_loss"]
    assert evidence.concepts == ()


def test_a_text_encoder_that_gives_nan_makes_the_audit_inconclusive(
    engine: AuditEngine, make_adapter: Make
) -> None:
    adapter = make_adapter(components=("text_encoder",))
    ref, delta = next(iter(adapter.deltas.items()))
    broken = with_delta(adapter, ref, dataclasses.replace(delta, scale=float("nan")))
    evidence = engine.audit([Member.of(broken, Strength())], Leash())
    assert [code for code, _ in evidence.inconclusive] == ["nonfinite_activations"]


def test_keys_that_were_not_mapped_make_the_audit_inconclusive_without_measuring(
    engine: AuditEngine, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = forwards(engine, monkeypatch)
    names = tuple(f"secret.{index}" for index in range(5))
    evidence = engine.audit([Member.of(make_adapter(unmapped=names), Strength())], Leash())
    [(code, sentence)] = evidence.inconclusive
    assert code == "unmapped_keys"
    assert "5 weight tensors" in sentence
    assert "secret.0, secret.1, secret.2, another" not in sentence
    assert "secret.2" in sentence
    assert evidence.adapters[0].unmapped == names
    assert evidence.concepts == ()
    assert begun == []


def test_an_adapter_that_changes_no_layer_makes_the_audit_inconclusive(
    engine: AuditEngine,
) -> None:
    nothing = Adapter("f" * 64, 10, "unknown", {}, KeyCoverage(3, 0, ("a", "b", "c"), 0), {})
    evidence = engine.audit([Member.of(nothing, Strength())], Leash())
    assert [code for code, _ in evidence.inconclusive] == ["no_matching_layers"]
    assert evidence.concepts == ()


def test_one_adapter_that_was_not_understood_spoils_the_audit_of_all(
    engine: AuditEngine, make_adapter: Make
) -> None:
    used = [
        Member.of(make_adapter(seed=1)),
        Member.of(make_adapter(seed=2, unmapped=("x",))),
    ]
    evidence = engine.audit(used, Leash())
    [(code, sentence)] = evidence.inconclusive
    assert code == "unmapped_keys"
    assert f"{2:064x}"[:12] in sentence
    assert len(evidence.adapters) == 2


def test_an_unknown_concept_is_refused_even_for_a_file_that_was_not_understood(
    engine: AuditEngine, make_adapter: Make
) -> None:
    with pytest.raises(NoDecisionError, match="wolf"):
        engine.audit([Member.of(make_adapter(unmapped=("x",)), Strength())], Leash(), ["wolf"])


def test_a_backend_that_is_missing_raises_and_is_not_replaced(
    make_engine: Make, make_adapter: Make
) -> None:
    engine = make_engine(backend="triton")
    with pytest.raises(BackendUnavailableError, match="interpreter"):
        engine.audit([Member.of(make_adapter(), Strength())], Leash())


def test_progress_grows_to_one(engine: AuditEngine, make_adapter: Make) -> None:
    told: list[tuple[str, float]] = []
    leash = Leash(report=lambda stage, share: told.append((stage, share)))
    engine.audit([Member.of(make_adapter(), Strength())], leash)
    assert {stage for stage, _ in told} == {"response"}
    shares = [share for _, share in told]
    assert shares == sorted(set(shares))
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert len(shares) > 2
