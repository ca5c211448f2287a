"""Launch configurations. They fix the order of summation, so they are part of every result."""

from __future__ import annotations

from dataclasses import dataclass

RANK_BLOCKS = (16, 32, 64, 128)
"""Padded ranks that kernels are compiled for; higher ranks are worked off 128 at a time."""


@dataclass(frozen=True)
class LoraResponseConfig:
    """How the kernels of `lora_response` are cut into programs.

    Attributes:
        tile: elements of a tile of the row product kernel, a power of two of at least 2048; a
            tile is as wide as the padded rank and as high as that leaves.
        num_warps: warps per program of stage one.
        fold_block: partial results that stage two reads at once; a power of two.
        enable_fp_fusion: whether products and sums may contract to fused multiply-adds. Pinned,
            because Triton's own default changes between releases.
    """

    tile: int = 2048
    num_warps: int = 4
    fold_block: int = 32
    enable_fp_fusion: bool = True

    def __post_init__(self) -> None:
        for name, least in (("tile", 2048), ("fold_block", 16)):
            value = getattr(self, name)
            if value < least or value & (value - 1):
                raise ValueError(f"{name} must be a power of two of at least {least}, not {value}")


DEFAULT_CONFIG = LoraResponseConfig()


def rank_block(rank: int) -> int:
    """The padded rank that a program for this rank is compiled for."""
    return next((block for block in RANK_BLOCKS if rank <= block), RANK_BLOCKS[-1])
