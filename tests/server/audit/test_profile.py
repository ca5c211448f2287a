"""The capture of activations: reduced together, never spoiled, never kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loragate_kernels import PairStats, pair_stats
from loragate_server.adapter.reference import Strength
from loragate_server.audit import profile
from loragate_server.audit.evidence import LayerProfile
from loragate_server.audit.profile import ProfileCollector
from loragate_server.audit.uses import Member
from loragate_server.progress import Leash

Make = Callable[..., Any]
ROWS, CHANNELS, SIDE = 3, 4, 6
PAIR_BYTES = 2 * ROWS * CHANNELS * SIDE * SIDE * 4
LIMITS = (0, PAIR_BYTES - 1, PAIR_BYTES, 2 * PAIR_BYTES + 7, 64 << 20)


class Denoiser(nn.Module):
    """Blocks whose outputs are overwritten at once, or left alone, with the same values."""

    def __init__(self, *, inplace: bool, view: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        blocks = [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(4)]
        self.down = nn.ModuleDict({"resnets": nn.ModuleList(blocks)})
        self.blocks = tuple(blocks)  # a tuple: registered once, under the name that is profiled
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        self.relu = nn.ReLU(inplace=inplace)
        self.inplace = inplace
        for block in self.blocks:
            block.register_forward_hook(lambda _module, _inputs, output: view(output))

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self.blocks:
            residual = hidden
            hidden = self.relu(block(hidden))
            if self.inplace:
                hidden += residual
                hidden.mul_(1.5)
            else:
                hidden = (hidden + residual) * 1.5
        return hidden


def collect(model: nn.Module, held_bytes: int, passes: int = 2) -> tuple[LayerProfile, ...]:
    """The profile of a few forward passes, base rows first."""
    generator = torch.Generator().manual_seed(4)
    collector = ProfileCollector(model, 2, "reference", Leash(), held_bytes)
    for _ in range(passes):
        base = torch.randn(ROWS, CHANNELS, SIDE, SIDE, generator=generator)
        batch = torch.cat([base, base + 0.1 * torch.randn(base.shape, generator=generator)])
        concepts = torch.tensor([0, 1, 0])
        watching = collector.watching(slice(0, ROWS), slice(ROWS, 2 * ROWS), concepts)
        with torch.inference_mode(), watching:
            model(batch)
        assert collector._held == []
    assert collector.nonfinite_layer is None
    return collector.profile(0, slice(1, 2))


@pytest.mark.parametrize("held_bytes", LIMITS)
def test_a_model_that_works_in_place_gives_the_numbers_of_one_that_does_not(
    held_bytes: int,
) -> None:
    # hooks of inplace models see the same outputs; only what happens to them later differs
    spoiled = collect(Denoiser(inplace=True), held_bytes)
    assert spoiled == collect(Denoiser(inplace=False), held_bytes)
    assert all(layer.relative_change > 0 for layer in spoiled)


def odd_start(output: Tensor) -> Tensor:
    return torch.cat([output.new_zeros(1), output.flatten()])[1:].view_as(output)


def gaps(output: Tensor) -> Tensor:
    return torch.nn.functional.pad(output, (0, 0, 0, 0, 0, 1))[:, :CHANNELS]


@pytest.mark.parametrize(
    "view", [lambda output: output, odd_start, gaps], ids=["dense", "odd start", "gaps"]
)
def test_no_limit_changes_a_bit(view: Callable[[Tensor], Tensor]) -> None:
    model = Denoiser(inplace=False, view=view)
    first, *others = (collect(model, held_bytes) for held_bytes in LIMITS)
    assert all(other == first for other in others)


@pytest.mark.parametrize("held_bytes", [0, 4096, 100_000])
def test_an_audit_has_the_same_profile_at_every_limit(
    held_bytes: int, make_engine: Make, make_adapter: Make
) -> None:
    used = [Member.of(make_adapter(), Strength())]
    whole = make_engine().audit(used, Leash())
    cut = make_engine(held_bytes=held_bytes).audit(used, Leash())
    assert cut.layers == whole.layers
    assert cut.concepts == whole.concepts


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[Tensor, Tensor]]]:
    """The pairs of each reduction."""
    seen: list[list[tuple[Tensor, Tensor]]] = []

    def watched(pairs: list[tuple[Tensor, Tensor]], **options: Any) -> PairStats:
        seen.append(pairs)
        return pair_stats(pairs, **options)

    monkeypatch.setattr(profile, "pair_stats", watched)
    return seen


@pytest.mark.parametrize(
    ("held_bytes", "sizes"),
    [(limit, [1, 1, 1, 1]) for limit in LIMITS[:3]] + [(LIMITS[3], [2, 2]), (LIMITS[4], [4])],
)
def test_layers_wait_for_each_other_as_long_as_the_limit_allows(
    held_bytes: int, sizes: list[int], calls: list[list[tuple[Tensor, Tensor]]]
) -> None:
    collect(Denoiser(inplace=True), held_bytes, passes=1)
    assert [len(pairs) for pairs in calls] == sizes


def test_a_layer_above_the_limit_is_not_copied(
    calls: list[list[tuple[Tensor, Tensor]]],
) -> None:
    model = Denoiser(inplace=False)
    outputs: list[Tensor] = []
    block = model.blocks[0]
    block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    for held_bytes in (PAIR_BYTES - 1, PAIR_BYTES):
        calls.clear()
        outputs.clear()
        collect(model, held_bytes, passes=1)
        [(base, adapted)] = calls[0]
        shared = [
            side.untyped_storage().data_ptr() == outputs[0].untyped_storage().data_ptr()
            for side in (base, adapted)
        ]
        assert shared == [held_bytes < PAIR_BYTES] * 2


def test_what_waits_is_let_go_when_the_forward_pass_fails(
    calls: list[list[tuple[Tensor, Tensor]]],
) -> None:
    model = Denoiser(inplace=False)
    collector = ProfileCollector(model, 2, "reference", Leash())

    def fail(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        raise MemoryError("no room")

    model.blocks[2].register_forward_hook(fail)
    watching = collector.watching(slice(0, 1), slice(1, 2), torch.tensor([0]))
    with pytest.raises(MemoryError, match="no room"), watching:
        model(torch.zeros(2, CHANNELS, SIDE, SIDE))
    assert collector._held == []
    assert calls == []


@pytest.mark.parametrize("held_bytes", LIMITS)
@pytest.mark.parametrize("row", [0, ROWS])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_layer_that_is_not_finite_is_named(
    value: float, row: int, held_bytes: int
) -> None:
    model = Denoiser(inplace=True)
    collector = ProfileCollector(model, 1, "reference", Leash(), held_bytes)

    def spoil(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        output[row, 1, 2, 3] = value

    model.blocks[1].register_forward_hook(spoil)
    watching = collector.watching(
        slice(0, ROWS), slice(ROWS, 2 * ROWS), torch.zeros(ROWS, dtype=torch.int64)
    )
    with torch.inference_mode(), watching:
        model(torch.ones(2 * ROWS, CHANNELS, SIDE, SIDE))
    assert collector.nonfinite_layer == "down.resnets.1"


def test_a_limit_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="held_bytes must not be negative, not -1"):
        ProfileCollector(nn.Module(), 1, "reference", Leash(), -1)
