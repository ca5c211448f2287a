"""vLLM-Omni: a single file by its own alphas, a folder by one scale for all layers.

Followed are `convert_single_file_lora` of `vllm_omni/diffusion/lora` and vLLM's `PEFTHelper`.
"""

from __future__ import annotations

import math

from loragate_server.intake.loader_rules.meaning import (
    LayerScale,
    Layout,
    LoaderRefusesError,
    Meaning,
)
from loragate_server.intake.loader_rules.scaling import declared_scaling
from loragate_server.intake.loader_rules.tensor_rule import own_alpha_scale
from loragate_server.intake.naming import BIAS


def vllm_omni_rule(layout: Layout) -> Meaning:
    """alpha / rank of each layer, or `lora_alpha` / `r` of the folder; patterns do not count."""
    if layout.naming.stacked:
        raise LoaderRefusesError("it holds LoHa, LoKr or Tucker factors")
    for ref, parts in layout.naming.parts.items():
        if layout.has_magnitude(ref) or BIAS in parts:
            raise LoaderRefusesError("it loads neither DoRA nor biases")
        if "." not in (layout.prefix_of(ref) or "."):
            raise LoaderRefusesError("it does not know kohya's names")
    if layout.folder is None:
        return Meaning(
            {ref: LayerScale(own_alpha_scale(layout, ref)) for ref in layout.naming.parts}, {}
        )
    if layout.alphas:
        raise LoaderRefusesError("a folder with alphas among its weights")
    scaling = declared_scaling(layout.config or {})
    scale = scaling.alpha / (math.sqrt(scaling.rank) if scaling.root else scaling.rank)
    return Meaning({ref: LayerScale(scale) for ref in layout.naming.parts}, {})
