"""vLLM-Omni: a single file by its own alphas, a folder by one scale for all layers.

Followed are `convert_single_file_lora` of `vllm_omni/diffusion/lora` and vLLM's `PEFTHelper`.
"""

from __future__ import annotations

import math
import re
from typing import Any

from loragate_server.intake.loader_rules.meaning import (
    LayerScale,
    Layout,
    LoaderRefusesError,
    Meaning,
    UnknownEffectError,
)
from loragate_server.intake.loader_rules.patterns import FirstMatch, require_alike
from loragate_server.intake.loader_rules.scaling import declared_scaling
from loragate_server.intake.loader_rules.spelling import require_known
from loragate_server.intake.loader_rules.tensor_rule import own_alpha_scale
from loragate_server.intake.naming import BIAS, plain_prefix

_PLAIN_NAME = re.compile(r"[\w.\-]+\Z", re.ASCII)


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


def vllm_omni_chosen_rule(layout: Layout) -> Meaning:
    """The same for the layers of `target_modules` alone: others are replaced in some order.

    A layer that another adapter has replaced before takes the weights of this one, too, so either
    may be.
    """
    whole = vllm_omni_folder_rule(layout)
    chosen = _chosen((layout.config or {}).get("target_modules"))
    layers = {ref: scale for ref, scale in whole.layers.items() if chosen.of(ref.module)}
    if not layers:
        raise LoaderRefusesError("its configuration chooses none of its layers")
    return Meaning(layers, {}, frozenset(whole.layers.keys() - layers.keys()))


def _chosen(targets: Any) -> FirstMatch[bool]:
    """A list names ends of layers; one string may be found anywhere."""
    if isinstance(targets, str):
        require_alike("target_modules", targets)
        patterns = [f".*({targets}).*"]
    elif isinstance(targets, list) and targets and all(isinstance(each, str) for each in targets):
        patterns = [str(each) for each in targets]
        if not all(_PLAIN_NAME.match(each) for each in patterns):
            raise UnknownEffectError("target_modules lists an expression")
    else:
        raise LoaderRefusesError("its configuration has no target_modules")
    return FirstMatch("target_modules", dict.fromkeys(patterns, True), otherwise=False)


def _require_plain(layout: Layout) -> None:
    if layout.naming.stacked:
        raise LoaderRefusesError("it holds LoHa, LoKr or Tucker factors")
    for ref, parts in layout.naming.parts.items():
        if layout.has_magnitude(ref) or BIAS in parts:
            raise LoaderRefusesError("it loads neither DoRA nor biases")
        if "." not in (layout.prefix_of(ref) or "."):
            raise LoaderRefusesError("it does not know kohya's names")
    prefixes = [plain_prefix(name) or "." for name in layout.weights]
    if prefixes and not any("." in prefix for prefix in prefixes):
        raise LoaderRefusesError("it does not know kohya's names")
    require_known(layout)
