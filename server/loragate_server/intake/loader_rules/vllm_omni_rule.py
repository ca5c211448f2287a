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


def vllm_omni_file_rule(layout: Layout) -> Meaning:
    """alpha / rank of each layer by its own alpha, for a path to the file; folder and header no."""
    _require_plain(layout)
    return Meaning(
        {ref: LayerScale(own_alpha_scale(layout, ref)) for ref in layout.naming.parts}, {}
    )


def vllm_omni_folder_rule(layout: Layout) -> Meaning:
    """`lora_alpha` / `r` of the folder for all layers, whatever patterns and ranks say."""
    _require_plain(layout)
    if layout.config is None:
        raise LoaderRefusesError("it has no adapter_config.json beside it")
    if layout.alphas:
        raise LoaderRefusesError("a folder with alphas among its weights")
    scaling = declared_scaling(layout.config)
    scale = scaling.alpha / (math.sqrt(scaling.rank) if scaling.root else scaling.rank)
    return Meaning({ref: LayerScale(scale) for ref in layout.naming.parts}, {})


def _require_plain(layout: Layout) -> None:
    if layout.naming.stacked:
        raise LoaderRefusesError("it holds LoHa, LoKr or Tucker factors")
    for ref, parts in layout.naming.parts.items():
        if layout.has_magnitude(ref) or BIAS in parts:
            raise LoaderRefusesError("it loads neither DoRA nor biases")
        if "." not in (layout.prefix_of(ref) or "."):
            raise LoaderRefusesError("it does not know kohya's names")
