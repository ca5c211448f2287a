"""Methods that bring weights in past what can be audited: they refuse at once, with a sentence.

Whatever is called `load_...` is among them unless it is known, so that one that diffusers adds is
closed before anybody has looked at it. What has no method is found by the seal, at the next use.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_KNOWN = {
    "load_lora_weights",  # asked
    "load_config",  # reads settings, and returns them
}
_BEFORE = "Do it before the guard is put on, so that the guarded model is the one that is known."
_LORA = "Load the adapter by load_lora_weights of the guarded pipeline."
_PIPELINE = {
    "load_textual_inversion": (
        "The guard lets in LoRAs, and no embeddings (textual inversions, or the embeddings of a "
        "pivotal pair). `loragate audit --embedding FILE` says what one is nearest to; one that "
        "you vouch for can be loaded before the guard is put on."
    ),
    "load_ip_adapter": (
        "An IP-Adapter is no LoRA and cannot be audited. One that you vouch for can be loaded "
        "before the guard is put on."
    ),
    "unload_ip_adapter": _BEFORE,
    "unload_textual_inversion": _BEFORE,
    "fuse_qkv_projections": _BEFORE,
    "unfuse_qkv_projections": _BEFORE,
    "enable_sequential_cpu_offload": (
        "It keeps the weights where they cannot be looked at. Use enable_model_cpu_offload."
    ),
}
_MODEL = {
    "add_adapter": _LORA,
    "load_adapter": _LORA,
    "load_attn_procs": _LORA,
    "load_state_dict": _BEFORE,
    "resize_token_embeddings": _BEFORE,
    "set_input_embeddings": _BEFORE,
    "fuse_qkv_projections": _BEFORE,
    "unfuse_qkv_projections": _BEFORE,
    "enable_layerwise_casting": _BEFORE,
}


def closed_methods(
    owner: Any, *, is_pipeline: bool, is_denoiser: bool = False
) -> Iterator[tuple[str, str]]:
    """Names of methods that refuse, each with the remedy that its refusal names.

    A denoiser asks in `load_lora_adapter`; an adapter of any other model is audited by nobody.
    """
    known = _KNOWN | {"load_lora_adapter"} if is_denoiser else _KNOWN
    named = _PIPELINE if is_pipeline else _MODEL
    for name in dir(type(owner)):
        is_loader = name.startswith("load_") and name not in known
        if is_loader or name in named:
            yield name, named.get(name, _LORA)


def sentence(owner: Any, name: str, remedy: str) -> str:
    """What a refusal says."""
    return (
        f"{type(owner).__name__}.{name} changes a guarded pipeline in a way that cannot be "
        f"audited. {remedy}"
    )
