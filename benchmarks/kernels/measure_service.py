"""Targets T8 and T9: what the kernels cost in the service that uses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.kernels.bench import Bench
from benchmarks.kernels.mixes import Mix
from loragate_kernels import pair_stats


class TokenBlock(nn.Module):
    """As much work as a transformer block of a denoiser: self- and cross-attention, GEGLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 64)
        self.attention = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(8))
        self.up, self.down = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """[rows, tokens, width] to the same."""
        for first, context in ((0, None), (4, x[:, :77])):
            normed = self.norms[first // 4](x)
            seen = normed if context is None else context
            q, k, v = (
                self.attention[first + index](source).unflatten(2, (self.heads, -1)).transpose(1, 2)
                for index, source in enumerate((normed, seen, seen))
            )
            mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + self.attention[first + 3](mixed)
        value, gate = self.up(self.norms[2](x)).chunk(2, dim=2)
        return x + self.down(value * functional.gelu(gate))


class PictureBlock(nn.Module):
    """As much work as a residual block: two normalised 3 x 3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = next(count for count in (32, 8, 2, 1) if channels % count == 0)
        self.norms = nn.ModuleList(nn.GroupNorm(groups, channels) for _ in range(2))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[rows, channels, height, width] to the same."""
        y = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = convolution(functional.silu(norm(y)))
        return x + y


class StandIn(nn.Module):
    """The hooked blocks of a denoiser in order, with random weights; equal blocks share them."""

    def __init__(self, case: Mix) -> None:
        super().__init__()
        self.order = case.shapes
        kinds = {
            str(shape[1:]): TokenBlock(shape[-1]) if len(shape) == 3 else PictureBlock(shape[1])
            for shape in case.shapes
        }
        self.blocks = nn.ModuleDict({key.replace(".", "_"): one for key, one in kinds.items()})

    def forward(self, inputs: dict[str, Tensor], watch: Callable[[Tensor], None] | None) -> None:
        """Runs every block on the input of its shape; `watch` sees what a hook would."""
        for shape in self.order:
            key = str(shape[1:])
            output = self.blocks[key](inputs[key])
            if watch is not None:
                watch(output)


class DeferredCapture:
    """Keeps outputs until they are worth a launch, then reduces them together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit, self._held, self._bytes = limit_bytes, [], 0
        self.results: list[object] = []

    def __call__(self, output: Tensor) -> None:
        rows = len(output) // 2
        self._held.append((output[:rows], output[rows:]))
        self._bytes += output.nbytes
        if self._bytes >= self._limit:
            self.flush()

    def flush(self) -> None:
        """Reduces what is held, if anything is."""
        if self._held:
            self.results.append(pair_stats(self._held, backend="triton"))
            self._held, self._bytes = [], 0


CAPTURE_LIMITS = (("at once", 0), ("held up to 64 MiB", 64 << 20))


def capture(bench: Bench) -> None:
    """T8: the same forward passes with and without capture, base and adapted rows in a batch."""
    case, dtype = bench.sizes.large, torch.bfloat16
    generator = torch.Generator(bench.device).manual_seed(3)
    with torch.inference_mode():
        model = StandIn(case).to(bench.device, dtype)
        inputs = {
            str(shape[1:]): torch.randn(
                2 * shape[0], *shape[1:], generator=generator, device=bench.device
            ).to(dtype)
            for shape in case.shapes
        }
        plain, plain_bytes = _forward(bench, lambda: model(inputs, None))
        found = []
        for name, limit in CAPTURE_LIMITS:

            def watched(limit: int = limit) -> None:
                held = DeferredCapture(limit)
                model(inputs, held)
                held.flush()

            took, peak = _forward(bench, watched)
            extra = max(0, peak - plain_bytes) / 2**20
            found.append((100 * (took / plain - 1), extra, name))
    best = min(found)
    every = "; ".join(f"{name} {share:.1f} %, {extra:.0f} MiB" for share, extra, name in found)
    detail = f"stand-in for {case.name}, {plain / 1e3:.1f} ms plain: {every}"
    bench.outcome("T8a", best[0], detail)
    bench.outcome("T8b", best[1], f"peak of the allocator, {best[2]}")


def _forward(bench: Bench, call: Callable[[], None]) -> tuple[float, int]:
    """Median microseconds, and bytes at the peak beyond those before."""
    call()
    before = 0
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    call()
    peak = torch.cuda.max_memory_allocated() - before if bench.device.type == "cuda" else 0
    return bench.time([call], "wall").median_us, peak


def warm_up(bench: Bench) -> None:
    """T9: a process whose disk cache is empty, then one that finds it filled."""
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = (_probe("warm", {"TRITON_CACHE_DIR": folder}) for _ in range(2))
    detail = f"{warm['variants']} variants, {cold['seconds']:.2f} s with an empty cache"
    bench.outcome("T9b", warm["seconds"], detail)
    later = warm["compiled_later"]
    names = ", ".join(warm["names"]) or "every variant of every operation was launched"
    bench.outcome("T9a", later, names if later is not None else "the interpreter does not compile")


def _probe(name: str, environment: dict[str, str]) -> dict[str, object]:
    command: Sequence[str] = [sys.executable, "-m", "benchmarks.kernels.probes", name]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=100
    )
    if done.returncode:
        raise RuntimeError(f"probe {name}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))
