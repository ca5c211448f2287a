"""Which kernels `lora_response` needs compiled on a device, and how to compile one beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from loragate_kernels._device import launching_on
from loragate_kernels.lora_response.config import DEFAULT_CONFIG, RANK_BLOCKS, LoraResponseConfig


@dataclass(frozen=True)
class CompileKey:
    """One compiled variant.

    Attributes:
        padded: the padded rank that stage one is compiled for; None for the fold.
        config: the constants that it is compiled with.
    """

    padded: int | None
    config: LoraResponseConfig

    def __str__(self) -> str:
        what = "fold" if self.padded is None else f"product:{self.padded}"
        return f"lora_response:{what}"


def compile_keys(_device: torch.device) -> tuple[CompileKey, ...]:
    """Every variant that calls without a configuration of their own can launch on a device.

    The constants are the same on all devices, so the list is too.
    """
    return tuple(CompileKey(padded, DEFAULT_CONFIG) for padded in (*RANK_BLOCKS, None))


def compile_key(key: CompileKey, device: torch.device) -> None:
    """Compiles one variant into this process, from Triton's cache on disk where it is there.

    The numbers given here decide nothing: the kernels are not specialised on them. What is said
    of pointers is what holds for every launch: all of them are allocations of their own, which
    begin at multiples of 16 bytes.
    """
    # imported late: the keys can be listed where Triton is not installed
    from loragate_kernels.lora_response import kernel, launch

    int64, float32, float64 = torch.int64, torch.float32, torch.float64
    with launching_on(device):
        if key.padded is None:
            kernel.lora_response_fold_kernel.warmup(
                int64, float32, float64, 1, grid=(1,), **launch.fold_options(key.config)
            )
        else:
            kernel.lora_response_product_kernel.warmup(
                int64,
                float32,
                float32,
                float32,
                1,
                1,
                1,
                grid=(1, 1),
                **launch.product_options(key.padded, key.config),
            )
