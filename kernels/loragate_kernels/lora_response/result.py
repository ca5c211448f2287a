"""What the two operations of `lora_response` return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from loragate_kernels.backend import Backend


@dataclass(frozen=True, eq=False)
class ResponseEnergy:
    """Local response energies, first order: ||s B A X||^2 with the inputs X of the base model.

    NaN where `nonfinite` is set. Inputs that are not finite, and sums beyond float32, give NaN
    or infinity in what they take part in.

    Attributes:
        energy: float64 [layers, adapters], never negative, summed over tokens.
        per_token: one float64 [adapters, tokens of the layer] per layer, or None if not asked for.
        nonfinite: bool [layers, adapters]: a weight of the adapter is NaN or infinite there.
        backend: what computed the sums.
        provenance: everything that can change the last bits: versions, block sizes and so on.
    """

    energy: Tensor
    per_token: tuple[Tensor, ...] | None
    nonfinite: Tensor
    backend: Backend
    provenance: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class InnerProducts:
    """Inner products <G_j, s_k B_k A_k> of directions and adapters.

    NaN where a weight of the adapter is not finite. A direction that is not finite gives NaN or
    infinity in its column.

    Attributes:
        values: float64 [adapters, directions], summed over layers in their order; or
            [layers, adapters, directions] if that was asked for.
        nonfinite: bool [layers, adapters]: a weight of the adapter is NaN or infinite there.
        backend: what computed the sums.
        provenance: everything that can change the last bits: versions, block sizes and so on.
    """

    values: Tensor
    nonfinite: Tensor
    backend: Backend
    provenance: Mapping[str, str]
