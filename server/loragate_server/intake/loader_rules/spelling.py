"""Spellings of a transformer's layers that SGLang is known to read."""

from __future__ import annotations

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.loader_rules.meaning import Layout, UnknownEffectError
from loragate_server.intake.naming import DOWN, PEFT_PREFIX

_LOOKED_UP = ("lora_unet_", "double_blocks.", "single_blocks.", "diffusion_model.")
"""Beginnings of Flux names that are looked up in a table of diffusers."""
_ENDS = {"lora_A": "lora_A", "lora_down.weight": "lora_down", "down.weight": "lora.down"}


def is_plain(layout: Layout, ref: ModuleRef) -> bool:
    """Whether a layer of the transformer has one of its ordinary names in the file."""
    prefix = layout.prefix_of(ref)
    if prefix is None:  # of several tensors, which diffusers has looked up
        return True
    flat = ref.module.replace(".", "_")
    own = {f"{start}{ref.module}" for start in ("", "transformer.", PEFT_PREFIX)}
    own |= {f"{start}{flat}" for start in ("lora_transformer_", "lycoris_")}
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


def require_known(layout: Layout) -> None:
    """Refuses to tell what becomes of a file of which diffusers, which they follow, knows nothing.

    Raises:
        UnknownEffectError: no tensor has a layer by its names.
    """
    if layout.weights and not layout.naming.parts and not layout.naming.stacked:
        first = next(iter(layout.weights))
        raise UnknownEffectError(f"it may know names that diffusers does not, such as {first[:80]}")
