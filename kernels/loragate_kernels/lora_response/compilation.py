"""Which kernels `lora_response` needs compiled on a device, and how to compile one beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from loragate_kernels._device import launching_on
from loragate_kernels.lora_response.config import DEFAULT_CONFIG, RANK_BLOCKS, LoraResponseConfig


@dataclass(frozen=True)
class CompileKey:
    """One compiled variant.

    Attributes:
        kernel: which of the three kernels.
        padded: the padded rank that stage one is compiled for; 0 for the fold.
        aligned: whether stage one may read 16 bytes at a time.
        per_token: whether the energy kernel also stores the energy of each token.
        config: the constants that it is compiled with.
    """

    kernel: Literal["energy", "product", "fold"]
    padded: int
    aligned: bool
    per_token: bool
    config: LoraResponseConfig

    def __str__(self) -> str:
        if self.kernel == "fold":
            return "lora_response:fold"
        how = "aligned" if self.aligned else "scalar"
        name = f"lora_response:{self.kernel}:{self.padded}:{how}"
        return f"{name}:per_token" if self.per_token else name


def compile_keys(_device: torch.device) -> tuple[CompileKey, ...]:
    """Every variant that calls without a configuration of their own can launch on a device.

    The constants are the same on all devices, so the list is too.
    """
    stage_one = [(padded, aligned) for padded in RANK_BLOCKS for aligned in (True, False)]
    energies = [
        CompileKey("energy", padded, aligned, per_token, DEFAULT_CONFIG)
        for padded, aligned in stage_one
        for per_token in (False, True)
    ]
    products = [
        CompileKey("product", padded, aligned, False, DEFAULT_CONFIG)
        for padded, aligned in stage_one
    ]
    return (*energies, *products, CompileKey("fold", 0, False, False, DEFAULT_CONFIG))


def compile_key(key: CompileKey, device: torch.device) -> None:
    """Compiles one variant into this process, from Triton's cache on disk where it is there.

    The numbers given here decide nothing: the kernels are not specialised on them. What is said
    of pointers is what holds for every launch: all of them are allocations of their own, which
    begin at multiples of 16 bytes.
    """
    function, arguments, options = _launch(key)
    with launching_on(device):
        function.warmup(*arguments, grid=(1, 1), **options)


def _launch(key: CompileKey) -> tuple[Any, tuple[torch.dtype | int, ...], dict[str, Any]]:
    """The kernel, the types of its pointers followed by any numbers, and its options."""
    # imported late: the keys can be listed where Triton is not installed
    from loragate_kernels.lora_response import kernel, launch

    pointers: tuple[torch.dtype, ...]
    int64, float32, float64 = torch.int64, torch.float32, torch.float64
    if key.kernel == "energy":
        options = launch.energy_options(key.padded, key.aligned, key.per_token, key.config)
        pointers = (int64, float32, float32, float32, float32)
        return kernel.lora_response_energy_kernel, (*pointers, 1, 1, 0, 1, 1), options
    if key.kernel == "product":
        options = launch.product_options(key.padded, key.aligned, key.config)
        pointers = (int64, float32, float32, float32)
        return kernel.lora_response_product_kernel, (*pointers, 1, 1, 1, 1), options
    pointers = (int64, float32, float64)
    return kernel.lora_response_fold_kernel, (*pointers, 1), launch.fold_options(key.config)
