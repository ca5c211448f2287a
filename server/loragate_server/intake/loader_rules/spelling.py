"""Spellings of layers: those that loaders with a table of names know.

diffusers finds a layer by replacing pieces of its name, so that many names lead to one layer.
Others look names up: what is not in their table, they leave out without an error.
"""

from __future__ import annotations

import re

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.loader_rules.meaning import Layout, UnknownEffectError
from loragate_server.intake.naming import DOWN, PEFT_PREFIX

_SGM = re.compile(
    r"lora_unet_(?:(?:input|output)_blocks_(?:0|[1-9]\d?)|middle_block)_\d_(?P<tail>\w+)\Z",
    re.ASCII,
)
_SGM_TAILS = ("in_layers_2", "out_layers_3", "emb_layers_1", "skip_connection", "op", "conv")
_SGM_ROOTS = {
    "lora_unet_input_blocks_0_0": "conv_in",
    "lora_unet_out_2": "conv_out",
    "lora_unet_time_embed_0": "time_embedding.linear_1",
    "lora_unet_time_embed_2": "time_embedding.linear_2",
    "lora_unet_label_emb_0_0": "add_embedding.linear_1",
    "lora_unet_label_emb_0_2": "add_embedding.linear_2",
}
"""Layers outside the blocks."""
_TEXT = ("lora_te_", "lora_te1_", "lora_te2_", "lora_te3_")
_LOOKED_UP = ("lora_unet_", "double_blocks.", "single_blocks.", "diffusion_model.")
"""Beginnings of Flux names that diffusers looks up, too."""
_ENDS = {"lora_A": "lora_A", "lora_down.weight": "lora_down", "down.weight": "lora.down"}


def prefix_of(layout: Layout, ref: ModuleRef) -> str | None:
    """What the names of a layer's tensors have in common, plain or not; None for several."""
    if ref in layout.naming.stacked and ref not in layout.naming.parts:
        return layout.naming.stacked[ref][0].prefix
    return layout.prefix_of(ref)


def in_table(layout: Layout, ref: ModuleRef) -> bool:
    """Whether ComfyUI's table of names has the one that this layer has in the file."""
    prefix = prefix_of(layout, ref)
    if prefix is None:  # of several tensors, which diffusers has looked up
        return not (layout.base.denoiser_component == "unet" and ref.component == "unet")
    if ref.component != layout.base.denoiser_component:
        return prefix in _of_text_encoder(ref)
    if ref.component == "unet":
        return prefix in _of_unet(ref.module) or _is_sgm(prefix, ref.module)
    own = {f"{start}{ref.module}" for start in ("", "transformer.", PEFT_PREFIX)}
    own |= {f"{start}{_flat(ref.module)}" for start in ("lora_transformer_", "lycoris_")}
    return prefix in own or prefix.startswith(_LOOKED_UP)


def require_one_way(layout: Layout) -> None:
    """Refuses a file that writes the ends of its names in several ways: some loaders know one.

    Raises:
        UnknownEffectError: they would load some of its layers.
    """
    names = (
        name
        for (ref, part), sources in layout.naming.sources.items()
        if part == DOWN and ref.component == layout.base.denoiser_component
        for name in sources
    )
    ways = {next((way for end, way in _ENDS.items() if end in name), "") for name in names}
    if len(ways) > 1:
        raise UnknownEffectError(f"its layers are named in several ways: {', '.join(sorted(ways))}")


def _of_unet(module: str) -> set[str]:
    dotted = module.replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out")
    flat = _flat(module)
    return {f"lora_unet_{flat}", f"lycoris_{flat}", dotted, f"unet.{dotted}"}


def _is_sgm(prefix: str, module: str) -> bool:
    if _SGM_ROOTS.get(prefix) == module:
        return True
    found = _SGM.match(prefix)
    return found is not None and (
        found["tail"] in _SGM_TAILS or _flat(module).endswith(f"_{found['tail']}")
    )


def _of_text_encoder(ref: ModuleRef) -> set[str]:
    module = ref.module.removeprefix("text_model.")
    flat = {f"{start}{text}{_flat(module)}" for start in _TEXT for text in ("", "text_model_")}
    return flat | {f"{ref.component}.{text}{module}" for text in ("", "text_model.")}


def _flat(module: str) -> str:
    return module.replace(".", "_")
