"""The transformer families, both trained by rectified flow: Stable Diffusion 3 and Flux."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from loragate_server.models.base import Conditioning
from loragate_server.models.pipeline import PipelineModel

GUIDANCE = 1.0
"""Guidance told to guidance-distilled models: the value LoRA trainers use by default."""


class FlowModel(PipelineModel):
    """A model of the straight path x_t = (1 - t) x + t e, whose velocity is e - x."""

    def __init__(
        self,
        pipeline: Any,
        name: str,
        digest: str,
        *,
        picture_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(pipeline, name, digest, picture_size=picture_size)
        kind = type(pipeline.scheduler).__name__
        if "FlowMatch" not in kind and not pipeline.scheduler.config.get("use_flow_sigmas"):
            raise ValueError(
                f"base model {name}: its scheduler is {kind}, not one of flow matching, by which "
                "models of this family are trained"
            )

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """(1 - t) x + t e."""
        share = times.to(latents.device, latents.dtype).reshape(-1, *(1 for _ in latents.shape[1:]))
        return (1 - share) * latents + share * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """e - x, at every time."""
        return noise - latents


class StableDiffusion3Model(FlowModel):
    """SD3: two CLIP text encoders and a T5 that may be absent."""

    family = "sd3"
    latent_multiple = 2  # it takes latents in patches, and leaves out what is none

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Gives `encoder_hidden_states` [n, tokens, width] and `pooled_projections` [n, width]."""
        hidden, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), None, None, device=self.device, do_classifier_free_guidance=False
        )
        return Conditioning({"encoder_hidden_states": hidden, "pooled_projections": pooled})

    def denoise(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """One forward pass of the transformer; same shape as `noisy`."""
        steps = int(self.pipeline.scheduler.config["num_train_timesteps"])
        prediction: Tensor = self.denoiser(
            noisy.to(self.dtype),
            timestep=times.to(self.device, self.dtype) * steps,
            **conditioning.tensors,
            return_dict=False,
        )[0]
        return prediction


class FluxModel(FlowModel):
    """Flux: latents packed into 2 x 2 patches, CLIP pooled text and T5 tokens."""

    family = "flux"
    patch = 2

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Gives `encoder_hidden_states` [n, tokens, width] and `pooled_projections` [n, width]."""
        hidden, pooled, _ = self.pipeline.encode_prompt(list(prompts), device=self.device)
        return Conditioning({"encoder_hidden_states": hidden, "pooled_projections": pooled})

    def denoise(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """One forward pass of the transformer; latents [n, c, h, w] with even h and w."""
        count, channels, height, width = noisy.shape
        tools = self.pipeline
        tokens = conditioning.tensors["encoder_hidden_states"].shape[1]
        packed = tools._pack_latents(noisy.to(self.dtype), count, channels, height, width)
        guidance = (
            torch.full((count,), GUIDANCE, device=self.device)
            if self.pipeline.transformer.config["guidance_embeds"]
            else None
        )
        prediction = self.denoiser(
            packed,
            timestep=times.to(self.device, self.dtype),
            guidance=guidance,
            txt_ids=torch.zeros(tokens, 3, device=self.device, dtype=self.dtype),
            img_ids=tools._prepare_latent_image_ids(
                count, height // 2, width // 2, self.device, self.dtype
            ),
            **conditioning.tensors,
            return_dict=False,
        )[0]
        factor = tools.vae_scale_factor
        size = (height * factor, width * factor)
        unpacked: Tensor = tools._unpack_latents(prediction, *size, factor)
        return unpacked

    def _conversion_options(self) -> dict[str, Any]:
        return {"return_alphas": True}
