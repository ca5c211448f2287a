"""Reductions over pairs of activations, fused for the GPU and exact on the CPU.

from loragate_kernels import pair_stats

stats = pair_stats([(base_1, adapted_1), (base_2, adapted_2)], backend="reference")
stats.relative_change()[stats.rows_of(1)]  # one number per row of the second pair
"""

from loragate_kernels.backend import Backend, BackendUnavailableError
from loragate_kernels.pair_stats import PairStats, pair_stats
from loragate_kernels.pair_stats.config import PairStatsConfig

__all__ = ["Backend", "BackendUnavailableError", "PairStats", "PairStatsConfig", "pair_stats"]
