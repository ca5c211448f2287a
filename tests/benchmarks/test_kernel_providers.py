"""Providers of the kernel benchmarks: what they compute, and that their bytes are counted right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.kernels import pair_providers
from benchmarks.kernels.mixes import Layer, Mix, Pairs, random_pairs
from benchmarks.kernels.registry import provider, register

CPU = torch.device("cpu")
SMALL = Mix("small", (Layer("a", (24, 40), 2), Layer("b", (5, 7, 9), 1)), 2)
EAGER = [pair_providers.IDIOMATIC, pair_providers.CORRECT, pair_providers.BEST]
EAGER += [pair_providers.FOREACH]
ROUNDED = (pair_providers.BEST, pair_providers.FOREACH)


class TrafficCounter(TorchDispatchMode):
    """Adds up the bytes of all operands and results that have at least `least` elements.

    Operands that are the same tensor count once; results that share memory with an operand are
    views, which move nothing.
    """

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.total = least, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        operands = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        results = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
        memory = {one.untyped_storage().data_ptr() for one in operands}
        if not any(one.untyped_storage().data_ptr() in memory for one in results):
            moved = {(one.data_ptr(), one.numel()): one for one in (*operands, *results)}
            self.total += sum(one.nbytes for one in moved.values() if one.numel() >= self.least)
        return result


def small_pairs(dtype: torch.dtype) -> Pairs:
    return random_pairs(SMALL.shapes, dtype, CPU)


def formula(pairs: Pairs) -> dict[str, Tensor]:
    """The sums in float64."""
    found: dict[str, list[Tensor]] = {}
    for base, adapted in pairs:
        a, b = base.flatten(1).double(), adapted.flatten(1).double()
        for name, value in {
            "sum_sq_diff": (a - b).square().sum(1),
            "sum_sq_base": a.square().sum(1),
            "sum_sq_adapted": b.square().sum(1),
            "sum_product": (a * b).sum(1),
            "max_abs_diff": (a - b).abs().amax(1),
        }.items():
            found.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in found.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [pair_providers.REFERENCE, *EAGER])
def test_a_provider_agrees_with_the_formula(name: str, dtype: torch.dtype) -> None:
    pairs = small_pairs(dtype)
    expected = formula(pairs)
    found = provider(pair_providers.OP, name).prepare(pairs)()
    # those that round the difference to 16 bits are as good as 16 bits
    rounds = name in ROUNDED and dtype != torch.float32
    rtol = 2e-2 if rounds else 1e-5
    for component in sorted(set(found) & set(expected)):
        value = found[component].double()
        torch.testing.assert_close(value, expected[component], rtol=rtol, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", EAGER)
def test_traffic_of_a_pair_provider_is_what_its_operations_move(
    name: str, dtype: torch.dtype
) -> None:
    pairs = small_pairs(dtype)
    one = provider(pair_providers.OP, name)
    call = one.prepare(pairs)
    with TrafficCounter(least=min(base[0].numel() for base, _ in pairs)) as counter:
        call()
    assert counter.total == one.traffic(pairs)


def test_traffic_per_element_is_what_the_documentation_says() -> None:
    costs = (pair_providers.idiomatic_cost, pair_providers.fp32_correct_cost)
    costs += (pair_providers.best_cost, pair_providers.foreach_cost)
    assert [cost(2) for cost in costs] == [88, 48, 18, 14]
    pairs = small_pairs(torch.bfloat16)
    assert pair_providers.useful_bytes(pairs) == sum(2 * base.nbytes for base, _ in pairs)
    assert pair_providers.useful_bytes(pairs) == SMALL.pair_bytes(torch.bfloat16)


def test_a_provider_name_is_taken_once_and_a_wrong_one_is_answered() -> None:
    with pytest.raises(ValueError, match="already has a provider 'ours'"):
        register(provider(pair_providers.OP, pair_providers.OURS))
    with pytest.raises(KeyError, match="has no provider 'theirs'; known are ours, "):
        provider(pair_providers.OP, "theirs")
