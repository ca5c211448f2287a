"""How far adapted activations moved from base activations, per probe row, in one pass."""

from loragate_kernels.pair_stats.op import pair_stats
from loragate_kernels.pair_stats.result import PairStats

__all__ = ["PairStats", "pair_stats"]
