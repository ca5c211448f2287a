"""SGLang diffusion: alpha from the tensors, else from folder or header, for transformers alone.

Followed are `load_peft_config`, `apply_peft_config` and `_apply_lora_to_layers` of its
`runtime/pipelines_core/lora` (0.5.23).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.loader_rules.meaning import (
    LayerScale,
    Layout,
    LoaderRefusesError,
    Meaning,
    UnknownEffectError,
)
from loragate_server.intake.loader_rules.names import LOOPS_BELOW_0
from loragate_server.intake.loader_rules.patterns import FirstMatch
from loragate_server.intake.loader_rules.spelling import is_plain, require_known, require_one_way
from loragate_server.intake.loader_rules.tensor_rule import HEADER_ALPHAS
from loragate_server.intake.naming import plain_prefix

_RAISES = (
    "alora_invocation_tokens", "layer_replication", "modules_to_save", "target_parameters",
    "trainable_token_indices", "use_bdlora", "use_qalora", "fan_in_fan_out", "lora_bias",
    "use_dora",
)  # fmt: skip
_FUSED = (".to_q", ".to_k", ".to_v", ".add_q_proj", ".add_k_proj", ".add_v_proj", ".proj_mlp")
_FOLDS_ALPHA = ("lora_unet_double_blocks_", "lora_unet_single_blocks_")


def sglang_rule(layout: Layout) -> Meaning:
    """alpha / rank: the layer's own alpha, cut to a whole number; else the one told for all."""
    return _meaning(layout, fused=False)


def sglang_fused_rule(layout: Layout) -> Meaning:
    """The same for a model whose q, k and v are one layer: there alphas are not cut."""
    return _meaning(layout, fused=True)


def _meaning(layout: Layout, *, fused: bool) -> Meaning:
    if layout.base.denoiser_component == "unet":
        raise LoaderRefusesError("it loads adapters of transformers alone")
    if layout.naming.stacked:
        if any(plain_prefix(name) is not None for name in layout.weights):
            raise UnknownEffectError("it may leave LoHa, LoKr or Tucker factors out")
        raise LoaderRefusesError("it holds LoHa, LoKr or Tucker factors")
    if any(layout.has_magnitude(ref) for ref in layout.naming.parts):
        raise LoaderRefusesError("it does not load DoRA")
    require_one_way(layout)
    require_known(layout)
    own = (ref for ref in layout.naming.parts if ref.component == "transformer")
    if not all(is_plain(layout, ref) for ref in own):
        raise UnknownEffectError("it may not know the names of all layers")
    config = _configuration(layout)
    whole = _whole_alpha(config)
    patterns = FirstMatch("alpha_pattern", _alpha_pattern(config), whole)
    root = bool(config.get("use_rslora"))
    text = frozenset(r for r in layout.naming.parts if r.component != "transformer")
    layers = {
        ref: LayerScale(_scale(layout, ref, patterns.of(ref.module), root=root, fused=fused))
        for ref in layout.naming.parts
        if ref not in text
    }
    if not layers:
        raise LoaderRefusesError("it holds no layer of the transformer")
    return Meaning(layers, {}, text)


def _scale(layout: Layout, ref: ModuleRef, told: int | None, *, root: bool, fused: bool) -> float:
    prefix, rank = layout.prefix_of(ref) or "", layout.rank_of(ref)
    if not rank:
        return 1.0
    own = layout.alphas.get(f"{prefix}.alpha")
    if own is not None and prefix.startswith(_FOLDS_ALPHA):
        # diffusers' converter has divided it in, and what is told for all counts once more
        if not float(own.item()) >= 0:
            raise LoaderRefusesError(LOOPS_BELOW_0)
        scale = float(own.item()) / rank * (1.0 if told is None else told / rank)
    elif own is not None:
        alpha = float(own.item())
        if not math.isfinite(alpha):
            raise LoaderRefusesError("an alpha is no number")
        fused = fused and ref.module.endswith(_FUSED)
        scale = (alpha if fused else math.trunc(alpha)) / rank
    else:
        scale = 1.0 if told is None else told / rank
    return scale * (math.sqrt(rank) if root else 1.0)


def _configuration(layout: Layout) -> Mapping[str, Any]:
    """adapter_config.json over the header's own fields."""
    start = "transformer."
    metadata = {
        key.removeprefix(start): value
        for key, value in (layout.metadata or {}).items()
        if key.startswith(start)
    }
    merged: dict[str, Any] = {**metadata, **(layout.config or {})}
    told = [_positive(layout.header[name], name) for name in HEADER_ALPHAS if name in layout.header]
    ranks = {layout.rank_of(ref) for ref in layout.naming.parts}
    if len(ranks) > 1:
        told = []
    alphas = [
        _positive(source["lora_alpha"], "lora_alpha")
        for source in (metadata, layout.config or {})
        if source.get("lora_alpha") is not None
    ]
    if len({*told, *alphas}) > 1:
        raise LoaderRefusesError("header and adapter_config.json tell different alphas")
    if told or alphas:
        merged["lora_alpha"] = (*told, *alphas)[0]
    for field in _RAISES:
        if merged.get(field):
            raise LoaderRefusesError(f"it does not load adapters with {field}")
    if merged.get("bias", "none") not in (None, "none"):
        raise LoaderRefusesError("it does not load adapters with bias")
    return merged


def _whole_alpha(config: Mapping[str, Any]) -> int | None:
    alpha = config.get("lora_alpha")
    return None if alpha is None else _positive(alpha, "lora_alpha")


def _alpha_pattern(config: Mapping[str, Any]) -> dict[str, int | None]:
    pattern = config.get("alpha_pattern") or {}
    if not isinstance(pattern, dict):
        raise LoaderRefusesError("alpha_pattern is no mapping")
    return {str(key): _positive(value, "alpha_pattern") for key, value in pattern.items()}


def _positive(value: Any, field: str) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if isinstance(value, bool) or not (number > 0 and number.is_integer()):
        raise LoaderRefusesError(f"{field} is no positive whole number")
    return int(number)
