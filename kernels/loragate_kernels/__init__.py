"""Reductions over activations and low-rank updates, fused for the GPU and exact on the CPU.

from loragate_kernels import pair_stats

stats = pair_stats([(base_1, adapted_1), (base_2, adapted_2)], backend="reference")
stats.sum_sq_diff[stats.rows_of(1)]  # one number per row of the second pair

`lora_response` has the operation on LoRA updates, `inner_products`.
"""

from loragate_kernels.backend import Backend, BackendUnavailableError
from loragate_kernels.compile_monitor import CompileMonitor, process_monitor
from loragate_kernels.lora_response import (
    Directions,
    InnerProducts,
    LayerDirections,
    LoraResponseConfig,
    LowRank,
    inner_products,
)
from loragate_kernels.pair_stats import PairStats, pair_stats
from loragate_kernels.pair_stats.config import PairStatsConfig
from loragate_kernels.warm_up import WarmUpReport, warm_up

__all__ = [
    "Backend",
    "BackendUnavailableError",
    "CompileMonitor",
    "Directions",
    "InnerProducts",
    "LayerDirections",
    "LoraResponseConfig",
    "LowRank",
    "PairStats",
    "PairStatsConfig",
    "WarmUpReport",
    "inner_products",
    "pair_stats",
    "process_monitor",
    "warm_up",
]
