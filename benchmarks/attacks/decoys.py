"""Changes that an attacker adds to an adapter to outvote what it has learned."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.attacks.bench import Bench
from benchmarks.attacks.factors import Factors, joined
from benchmarks.attacks.transforms import random_layer
from loragate_server.adapter.adapter import ModuleRef
from loragate_server.concepts.probes import encode_probe_prompts, prompt_rows

_DIRECTIONS = 2


def norms_of(own: Factors) -> float:
    """The median Frobenius norm of the layers' changes."""
    return median(float((up.flatten(1) @ down.flatten(1)).norm()) for down, up in own.values())


def loud(own: Factors, bench: Bench, layers: int, times: float, seed: int) -> Factors:
    """Random changes of a few untouched layers, so many times as large as the adapter's own."""
    generator = torch.Generator().manual_seed(seed)
    free = [name for name in bench.shapes if name not in own]
    chosen = torch.randperm(len(free), generator=generator)[:layers].tolist()
    norm = times * norms_of(own)
    extra = {
        free[index]: random_layer(bench.shapes[free[index]], norm, generator) for index in chosen
    }
    return {**own, **extra}


def quiet_inputs(bench: Bench) -> Mapping[str, Tensor]:
    """Per linear layer the directions that neutral inputs use least, float32 [2, in]."""
    moments: dict[str, Tensor] = {}
    handles = []

    def watch(name: str) -> None:
        module = bench.base.denoiser.get_submodule(name)
        if not isinstance(module, nn.Linear):
            return

        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            rows = args[0].detach().reshape(-1, args[0].shape[-1]).double()
            moments[name] = moments.get(name, torch.zeros(())) + rows.t() @ rows

        handles.append(module.register_forward_pre_hook(hook))

    probes = bench.engine.probes
    told = encode_probe_prompts(bench.base, probes)
    try:
        for name in bench.shapes:
            watch(name)
        with torch.inference_mode():
            for concept in range(probes.forbidden_count, len(probes.concepts)):
                rows = prompt_rows(probes, torch.full((probes.plan.rows,), concept))
                bench.base.denoise(probes.noisy[concept], probes.times, told.rows(rows))
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: torch.linalg.eigh(moment).eigenvectors[:, :_DIRECTIONS].t().float()
        for name, moment in moments.items()
    }


def unheard(own: Factors, bench: Bench, times: float, seed: int) -> Factors:
    """Large changes of every untouched linear layer along inputs that hardly occur."""
    generator = torch.Generator().manual_seed(seed)
    made = dict(own)
    norm = times * norms_of(own)
    for name, down in quiet_inputs(bench).items():
        if name not in own:
            up = torch.randn(bench.shapes[name][0], _DIRECTIONS, generator=generator)
            made[name] = (down, up * (norm / float((up @ down).norm())))
    return made


def against(own: Factors, bench: Bench, concept: int, times: float) -> Factors:
    """Every untouched linear layer moved a little along the concept's own gradient: unlearning."""
    made = dict(own)
    norm = times * norms_of(own)
    for name, (down, up) in _gradients(bench, concept).items():
        if name not in own and len(bench.shapes[name]) == 2:
            made[name] = (down, up * (norm / float((up @ down).norm().clamp_min(1e-12))))
    return made


def _gradients(bench: Bench, concept: int) -> Factors:
    """The concept's unit gradients over all strata, as factors of a step that unlearns it."""
    strata, rank = len(bench.gradients.strata), bench.gradients.plan.rank
    lines = slice(concept * strata * rank, (concept + 1) * strata * rank)
    found = {}
    for name in bench.shapes:
        ref = ModuleRef(bench.base.denoiser_component, name)
        if ref in bench.gradients.layers:
            layer = bench.gradients.layers[ref]
            found[name] = (layer.right[lines].float(), layer.left[lines].float().t())
    return found


def gauge(own: Factors, bench: Bench, concept: int, times: float, seed: int) -> Factors:
    """Values and outputs of attention changed against each other, so that nothing changes.

    W_out (1 - M)(1 + M) W_v = W_out W_v where M M = 0; M stays inside one head. Of many random M
    the one is taken that votes most against the concept.
    """
    made = dict(own)
    generator = torch.Generator().manual_seed(seed)
    gradients = _gradients(bench, concept)
    norm = times * norms_of(own)
    for name in own:
        if not name.endswith(".to_v"):
            continue
        out = name.removesuffix("to_v") + "to_out.0"
        attention = bench.base.denoiser.get_submodule(name.removesuffix(".to_v"))
        values, outputs = _weight(bench, name), _weight(bench, out)
        width = len(values) // int(attention.heads)  # type: ignore[arg-type]
        tried = []
        for _ in range(64):
            left, right = _nilpotent(len(values), width, generator)
            change = (left[:, None], right[None] @ values)
            counter = (outputs @ left[:, None], -right[None])
            size = norm / max(float(left.norm() * change[1].norm()), 1e-12)
            vote = _along(gradients[name], change) + _along(gradients[out], counter)
            tried.append((vote * size, size, change, counter))
        _, size, change, counter = max(tried, key=lambda each: each[0])
        made[name] = joined(made[name], (change[1], change[0] * size))
        made[out] = joined(made[out], (counter[1], counter[0] * size))
    return made


def _weight(bench: Bench, name: str) -> Tensor:
    weight = bench.base.denoiser.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _nilpotent(size: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """u, v inside one head with v . u = 0, so that (u v')(u v') = 0."""
    head = int(torch.randint(size // width, (), generator=generator))
    inside = slice(head * width, (head + 1) * width)
    u, v = torch.zeros(size), torch.zeros(size)
    u[inside] = torch.randn(width, generator=generator)
    v[inside] = torch.randn(width, generator=generator)
    v -= u * (u @ v) / (u @ u)
    return u, v


def _along(gradient: tuple[Tensor, Tensor], change: tuple[Tensor, Tensor]) -> float:
    """<gradient, change>; the gradient as (down, up), the change as (up, down)."""
    down, up = gradient
    return float(((up.t() @ change[0]) * (down @ change[1].t())).sum())
