"""Launch configurations. They fix the order of summation, so they are part of every result.

`TABLE` is committed and nothing is tuned at run time: what a computer happened to find fastest
would decide the last bits of a verdict. Within one architecture all element types share `block`
and `chunk`, so element k of a row meets the same lane whatever its type, and every architecture
has the same ones today, so the interpreter sums in the order that a GPU does, but for the four
neighbours that are added up at once and the last step, in which the lanes of a chunk are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch


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
"""Eight 2-byte or two times four 4-byte elements per thread and load: 16 bytes each."""

DEFAULT_ENTRY = "default"
INTERPRETER_ENTRY = "interpreter"
CONFIG_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

TABLE: Mapping[tuple[str, torch.dtype], PairStatsConfig] = {
    (architecture, dtype): DEFAULT_CONFIG
    for architecture in ("sm_80", "sm_90", "sm_100", INTERPRETER_ENTRY, DEFAULT_ENTRY)
    for dtype in CONFIG_DTYPES
}
"""(architecture, element type) to configuration; "default" serves architectures not listed.

The values follow from the width of the loads; they were compiled for every architecture named
here, and on sm_90 nothing that was measured against them was faster by more than two percent. An
entry that differs from the others needs a measurement on its architecture.
"""


@dataclass(frozen=True)
class ConfigChoice:
    """The configurations of one call.

    Attributes:
        entry: the architecture whose entries of `TABLE` are used, "default (sm_75)" where sm_75
            has none, or "given" where the caller passed a configuration.
        by_dtype: one configuration for each supported element type.
    """

    entry: str
    by_dtype: Mapping[torch.dtype, PairStatsConfig]

    @property
    def fold(self) -> PairStatsConfig:
        """Stage two reads float32 whatever stage one read, so float32's entry is its own."""
        return self.by_dtype[torch.float32]

    def described(self) -> dict[str, str]:
        """For the provenance: the entry, and each value once, or by type where types differ."""
        lines = {"config": self.entry}
        for name in ("block", "chunk", "num_warps", "enable_fp_fusion"):
            values = {dtype: str(getattr(each, name)) for dtype, each in self.by_dtype.items()}
            lines[name] = (
                values[torch.float32]
                if len(set(values.values())) == 1
                else ",".join(f"{dtype_name(dtype)}:{value}" for dtype, value in values.items())
            )
        return lines | {"fold_block": str(self.fold.fold_block)}


def dtype_name(dtype: torch.dtype) -> str:
    """The type's name as results carry it: "float32"."""
    return str(dtype).removeprefix("torch.")


def architecture_of(device: torch.device) -> str:
    """The first half of a key of `TABLE`: "sm_90", or "interpreter" for tensors of the CPU."""
    if device.type != "cuda":
        return INTERPRETER_ENTRY
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def choose_config(architecture: str, given: PairStatsConfig | None = None) -> ConfigChoice:
    """The configurations of `architecture` from the table, or `given` for all element types."""
    if given is not None:
        return ConfigChoice("given", dict.fromkeys(CONFIG_DTYPES, given))
    known = (architecture, torch.float32) in TABLE
    row = architecture if known else DEFAULT_ENTRY
    entry = row if known else f"{DEFAULT_ENTRY} ({architecture})"
    return ConfigChoice(entry, {dtype: TABLE[row, dtype] for dtype in CONFIG_DTYPES})
