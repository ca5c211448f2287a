"""`Adapter`: what intake makes of a file, and all that the audit knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from loragate_server.adapter.delta import WeightDelta
from loragate_server.adapter.reference import Kind


@dataclass(frozen=True)
class KeyCoverage:
    """Which tensors of a file became part of a weight delta, and which did not.

    Of an embedding: which became rows of its word; `matched_modules` then counts text encoders.
    """

    weight_tensors: int
    mapped_tensors: int
    unmapped: tuple[str, ...]
    matched_modules: int

    @property
    def complete(self) -> bool:
        """Whether every weight-carrying tensor was mapped and at least one layer is changed."""
        return not self.unmapped and self.matched_modules > 0


@dataclass(frozen=True)
class ModuleRef:
    """A layer of a base model: the component ("unet", "text_encoder", ...) and its dotted name."""

    component: str
    module: str


@dataclass(frozen=True)
class Adapter:
    """An adapter file as some loaders read it: one weight delta per changed layer, or a new word.

    Attributes:
        deltas: none in an embedding.
        declared: header metadata as the uploader wrote it: a hint, never proof.
        loaders: the loaders that read the bytes so; empty where that does not matter.
        words: of an embedding: by text encoder, the rows that stand for the new word in a prompt,
            float32 [n, width]; the same n in each. Empty in a LoRA.
    """

    sha256: str
    size_bytes: int
    format: str
    deltas: Mapping[ModuleRef, WeightDelta]
    coverage: KeyCoverage
    declared: Mapping[str, str]
    config_sha256: str = ""
    loaders: tuple[str, ...] = ()
    words: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """What it is."""
        return "embedding" if self.words else "lora"


@dataclass(frozen=True)
class Readings:
    """What one file means to the loaders that may load it.

    Attributes:
        adapters: one per distinct meaning, at least one; loaders that agree share one.
        refused: loaders that would not load the file, and why.
        doubts: why no verdict can speak for all loaders, as (code, sentence); empty when one can.
    """

    adapters: tuple[Adapter, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    doubts: tuple[tuple[str, str], ...] = ()
