"""The UNet families: Stable Diffusion 1.x and 2.x, and SDXL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from loragate_server.models.base import Conditioning
from loragate_server.models.pipeline import PipelineModel
from loragate_server.models.word_table import WordTable

_PREDICTIONS = ("epsilon", "v_prediction")
_BETAS = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps")
GUIDANCE_TOLD = 7.5
"""Guidance told to UNets distilled with it: what their pipelines ask for, less 1."""


class StableDiffusionModel(PipelineModel):
    """Stable Diffusion 1.x and 2.x: one CLIP text encoder, a discrete noise schedule."""

    family = "sd"

    def __init__(
        self,
        pipeline: Any,
        name: str,
        digest: str,
        *,
        picture_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(pipeline, name, digest, picture_size=picture_size)
        # Convolutions read neighbouring channels together: up to a third faster on a CPU.
        self.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _require_betas(name, pipeline.scheduler)
        # what the model's own schedule had by default is another default of this one's
        told = {k: v for k, v in pipeline.scheduler.config.items() if k != "_use_default_values"}
        self._schedule = DDPMScheduler.from_config(told)
        self._predicts = self._schedule.config["prediction_type"]
        if self._predicts not in _PREDICTIONS:
            raise ValueError(
                f"base model {name}: the scheduler's prediction_type is {self._predicts!r}, "
                f"not one of {', '.join(_PREDICTIONS)}"
            )

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Gives `encoder_hidden_states` [n, tokens, width]."""
        hidden, _ = self.pipeline.encode_prompt(
            list(prompts), self.device, 1, do_classifier_free_guidance=False
        )
        return Conditioning({"encoder_hidden_states": hidden})

    def word_tables(self) -> Mapping[str, WordTable]:
        """Those of every CLIP text encoder; see `BaseModel`."""
        return {
            component: WordTable.of(encoder, getattr(self.pipeline, tokenizer))
            for component, encoder in self.components.items()
            if (tokenizer := component.replace("text_encoder", "tokenizer")) != component
        }

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """sqrt(a_t) x + sqrt(1 - a_t) e at timestep `round(time * steps) - 1`."""
        noisy: Tensor = self._schedule.add_noise(latents, noise, self._timesteps(times))
        return noisy

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The noise itself, or v = sqrt(a_t) e - sqrt(1 - a_t) x."""
        if self._predicts == "epsilon":
            return noise
        velocity: Tensor = self._schedule.get_velocity(latents, noise, self._timesteps(times))
        return velocity

    def denoise(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """One forward pass of the UNet; same shape as `noisy`."""
        tensors = dict(conditioning.tensors)
        prediction: Tensor = self.denoiser(
            noisy.to(self.dtype),
            self._timesteps(times).to(self.device),
            timestep_cond=self._told_guidance(len(times)),
            encoder_hidden_states=tensors.pop("encoder_hidden_states"),
            added_cond_kwargs=tensors or None,
            return_dict=False,
        )[0]
        return prediction

    def _told_guidance(self, count: int) -> Tensor | None:
        """What UNets are told that were distilled with guidance, such as LCM's; None for others."""
        config: Any = self.denoiser.config
        width = config.time_cond_proj_dim
        if width is None:
            return None
        scales = torch.full((count,), GUIDANCE_TOLD)
        told: Tensor = self.pipeline.get_guidance_scale_embedding(scales, embedding_dim=width)
        return told.to(self.device, self.dtype)

    def _timesteps(self, times: Tensor) -> Tensor:
        steps = int(self._schedule.config["num_train_timesteps"])
        return ((times * steps).round().long() - 1).clamp(0, steps - 1)


def _require_betas(name: str, scheduler: Any) -> None:
    """Refuses a model that is noised in another way than by a schedule of betas.

    Raises:
        ValueError: the scheduler has no betas, or reads its times or its noise otherwise.
    """
    config = scheduler.config
    kind = type(scheduler).__name__
    betas = config.get("trained_betas") is not None or all(config.get(key) for key in _BETAS)
    if not betas or "EDM" in kind or "Flow" in kind:
        raise ValueError(
            f"base model {name}: its scheduler is {kind}, which has no schedule of betas; a model "
            "of this family that is noised by EDM or by flow cannot be measured"
        )
    if config.get("use_flow_sigmas") or config.get("timestep_type") == "continuous":
        raise ValueError(
            f"base model {name}: its {kind} is set to flow sigmas or continuous times; a model of "
            "this family is measured at the discrete times of its betas alone"
        )


class StableDiffusionXLModel(StableDiffusionModel):
    """SDXL: two CLIP text encoders, pooled text and picture sizes as added conditions."""

    family = "sdxl"

    def __init__(
        self,
        pipeline: Any,
        name: str,
        digest: str,
        *,
        picture_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(pipeline, name, digest, picture_size=picture_size)
        _require_six_sizes(name, pipeline)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Gives `encoder_hidden_states`, `text_embeds` [n, width] and `time_ids` [n, 6].

        The picture sizes say: original size and target size are `picture_size`, not cropped.
        """
        hidden, _, pooled, _ = self.pipeline.encode_prompt(
            list(prompts), device=self.device, do_classifier_free_guidance=False
        )
        height, width = self.picture_size
        sizes = torch.tensor(
            [[height, width, 0, 0, height, width]], dtype=hidden.dtype, device=hidden.device
        )
        return Conditioning(
            {
                "encoder_hidden_states": hidden,
                "text_embeds": pooled,
                "time_ids": sizes.repeat(len(prompts), 1),
            }
        )

    def _conversion_options(self) -> dict[str, Any]:
        return {"unet_config": self.denoiser.config}


def _require_six_sizes(name: str, pipeline: Any) -> None:
    """Refuses a UNet that is told something else than six sizes and a pooled text.

    Raises:
        ValueError: it is, as a refiner is told how pleasing a picture should be.
    """
    config, pooled = pipeline.unet.config, pipeline.text_encoder_2.config.projection_dim
    wanted = 6 * config.addition_time_embed_dim + pooled
    if config.projection_class_embeddings_input_dim != wanted:
        raise ValueError(
            f"base model {name}: its UNet is told {config.projection_class_embeddings_input_dim} "
            f"numbers beside the text, not {wanted}; refiners of SDXL cannot be measured"
        )
