"""Fresh LoRA layers in a base model, for as long as they are trained, and their file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import cast_training_params
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError

from loragate_server.models.pipeline import PipelineModel
from loragate_server.trials.errors import TrialError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers that adapters of image models change most of all."""

_LARGE = 500_000_000
"""Parameters from which activations are computed again instead of being kept."""


@contextmanager
def fresh_layers(base: PipelineModel, rank: int, seed: int) -> Iterator[list[torch.nn.Parameter]]:
    """Inside it the denoiser has layers to train; afterwards it is as it was, to the last bit."""
    denoiser: Any = base.denoiser
    large = sum(each.numel() for each in denoiser.parameters()) >= _LARGE
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(ATTENTION), init_lora_weights="gaussian"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        denoiser.add_adapter(config)
    try:
        cast_training_params(denoiser, dtype=torch.float32)
        if large:
            denoiser.enable_gradient_checkpointing()
        yield [each for each in denoiser.parameters() if each.requires_grad]
    finally:
        if large:
            denoiser.disable_gradient_checkpointing()
        denoiser.unload_lora()
        denoiser.requires_grad_(False)


def save_layers(base: PipelineModel, path: Path) -> None:
    """Writes the layers as diffusers does, in float16, as users find such files."""
    state = get_peft_model_state_dict(base.denoiser)
    halved = {name: value.detach().to("cpu", torch.float16) for name, value in state.items()}
    layers = {f"{base.denoiser_component}_lora_layers": convert_state_dict_to_diffusers(halved)}
    try:
        type(base.pipeline).save_lora_weights(
            path.parent, weight_name=path.name, safe_serialization=True, **layers
        )
    except SafetensorError as error:  # which is no OSError, though the disk be full
        raise TrialError(f"{path.parent} cannot be written: {error}") from error
