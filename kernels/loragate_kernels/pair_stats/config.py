"""Launch configurations. They fix the order of summation, so they are part of every result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PairStatsConfig:
    """How `pair_stats` is cut into programs.

    Attributes:
        block: elements that a program reads at once; a power of two.
        chunk: elements per program; a multiple of `block`. Together with `block` and
            `num_warps` it decides the order of summation, whatever the grid.
        num_warps: warps per program of stage one.
        fold_block: partial results that stage two reads at once; a power of two.
        enable_fp_fusion: whether products and sums may contract to fused multiply-adds. Pinned,
            because Triton's own default changes between releases.
    """

    block: int = 2048
    chunk: int = 32768
    num_warps: int = 8
    fold_block: int = 32
    enable_fp_fusion: bool = True

    def __post_init__(self) -> None:
        for name in ("block", "fold_block"):
            value = getattr(self, name)
            if value < 16 or value & (value - 1):
                raise ValueError(f"{name} must be a power of two of at least 16, not {value}")
        if self.chunk < self.block or self.chunk % self.block:
            raise ValueError(f"chunk must be a multiple of block {self.block}, not {self.chunk}")
        # Counts of non-finite elements travel as float32, which is exact up to this.
        if self.chunk > 1 << 24:
            raise ValueError(f"chunk must be at most {1 << 24}, not {self.chunk}")


DEFAULT_CONFIG = PairStatsConfig()
