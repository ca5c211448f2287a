"""Reductions over activations and low-rank updates, fused for the GPU and exact on the CPU.

from loragate_kernels import pair_stats

stats = pair_stats([(base_1, adapted_1), (base_2, adapted_2)], backend="reference")
stats.relative_change()[stats.rows_of(1)]  # one number per row of the second pair

`lora_response` has the operations on LoRA updates: `response_energy` and `inner_products`.
"""

from loragate_kernels.backend import Backend, BackendUnavailableError
from loragate_kernels.compile_monitor import CompileMonitor, process_monitor
from loragate_kernels.lora_response import (
    Directions,
    InnerProducts,
    LayerDirections,
    LoraResponseConfig,
    LowRank,
    ResponseEnergy,
    inner_products,
    response_energy,
)
from loragate_kernels.pair_stats import PairStats, channel_mean_diff, pair_stats
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
    "ResponseEnergy",
    "WarmUpReport",
    "channel_mean_diff",
    "inner_products",
    "pair_stats",
    "process_monitor",
    "response_energy",
    "warm_up",
]
