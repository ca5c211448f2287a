"""Several adaptations in shared forward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from loragate_server.adapter.reference import Strength
from loragate_server.audit.response import Adaptation, Response, measure
from loragate_server.models import BaseModel
from loragate_server.progress import Leash

Make = Callable[..., Any]


def run(
    base: BaseModel, probes: Any, adaptations: list[Adaptation], rows: int = 8
) -> list[Response]:
    return measure(
        base,
        probes,
        torch.arange(len(probes.concepts)),
        adaptations,
        batch_rows=rows,
        backend="reference",
        leash=Leash(),
    )


def test_adaptations_in_one_batch_do_not_touch_each_other(
    base: BaseModel, make_probes: Make, make_adapter: Make
) -> None:
    probes = make_probes(base)
    adaptations: list[Adaptation] = [
        [(make_adapter(seed=1), Strength())],
        [(make_adapter(size=0.0), Strength())],
        [(make_adapter(seed=2), Strength(0.5)), (make_adapter(seed=3), Strength(0.2))],
    ]
    together = run(base, probes, adaptations)
    for shared, adaptation in zip(together, adaptations, strict=True):
        [alone] = run(base, probes, [adaptation])
        torch.testing.assert_close(shared.change, alone.change, rtol=2e-3, atol=2e-5)
        for one, other in zip(
            shared.profile.profile(0, slice(3, None)),
            alone.profile.profile(0, slice(3, None)),
            strict=True,
        ):
            assert one.layer == other.layer
            assert abs(one.relative_change - other.relative_change) < 1e-4
    assert together[0].change.abs().max() > 0.01


def test_one_adaptation_of_nan_does_not_spoil_another(
    base: BaseModel, make_probes: Make, make_adapter: Make
) -> None:
    probes = make_probes(base)
    good: Adaptation = [(make_adapter(seed=1), Strength())]
    bad: Adaptation = [(make_adapter(seed=2), Strength(float("nan")))]
    fine, broken = run(base, probes, [good, bad])
    assert fine.profile.nonfinite_layer is None
    assert fine.change.isfinite().all()
    assert broken.profile.nonfinite_layer is not None
    assert broken.change.isnan().all()


def test_the_last_pass_is_filled_up_but_counted_once(
    base: BaseModel, make_probes: Make, make_adapter: Make, monkeypatch: Any
) -> None:
    sizes = []
    denoise = base.denoise

    def watching(noisy: Any, times: Any, conditioning: Any) -> Any:
        sizes.append(len(noisy))
        return denoise(noisy, times, conditioning)

    monkeypatch.setattr(base, "denoise", watching)
    probes = make_probes(base)
    used: list[Adaptation] = [[(make_adapter(), Strength())]]
    [filled] = run(base, probes, used, rows=30)
    assert sizes == [60, 60]
    [exact] = run(base, probes, used, rows=22)
    assert sizes[2:] == [44, 44]
    assert filled.change.shape == (11, 4)
    torch.testing.assert_close(filled.change, exact.change, rtol=2e-3, atol=2e-5)
    for one, other in zip(
        filled.profile.profile(1, slice(3, None)),
        exact.profile.profile(1, slice(3, None)),
        strict=True,
    ):
        assert abs(one.relative_change - other.relative_change) < 1e-5
        assert abs(one.concept_contrast - other.concept_contrast) < 1e-4
