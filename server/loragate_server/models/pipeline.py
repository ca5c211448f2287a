"""What the families share: a diffusers pipeline seen as a `BaseModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from loragate_server.models.base import BaseModel

_TEXT_ENCODERS = ("lora_te", "text_encoder")


class PipelineModel(BaseModel):
    """A base model made of the components of a diffusers pipeline.

    The pipeline is put into evaluation mode and needs no gradients from here on.
    """

    latent_multiple: ClassVar[int] = 1
    """Latent height and width are a multiple of this."""
    patch: ClassVar[int] = 1
    """Height and width of the patches that become channels before the denoiser."""

    def __init__(
        self,
        pipeline: Any,
        name: str,
        digest: str,
        *,
        picture_size: tuple[int, int] | None = None,
    ) -> None:
        self.name = name
        self.digest = digest
        self.pipeline = pipeline
        self.components: Mapping[str, nn.Module] = {
            component: getattr(pipeline, component)
            for component in pipeline._lora_loadable_modules
            if getattr(pipeline, component, None) is not None
        }
        self.denoiser_component = "unet" if "unet" in self.components else "transformer"
        self._require_latents_alone(pipeline)
        for component in pipeline.components.values():
            if isinstance(component, nn.Module):
                component.eval().requires_grad_(False)
        if pipeline.vae.config.get("force_upcast") and pipeline.vae.dtype == torch.float16:
            pipeline.vae.to(torch.float32)
        self._picture_size = picture_size or self._default_picture_size()
        self._require_whole_latents()

    def _require_whole_latents(self) -> None:
        """Refuses pictures that do not become whole latents, and whole patches of those.

        Raises:
            ValueError: a side is no multiple.
        """
        multiple = self.pipeline.vae_scale_factor * self.latent_multiple * self.patch
        if any(side % multiple for side in self._picture_size):
            height, width = self._picture_size
            raise ValueError(
                f"base model {self.name}: pictures of {width}x{height} pixels do not fit it; each "
                f"side has to be a multiple of {multiple}"
            )

    def _require_latents_alone(self, pipeline: Any) -> None:
        """Refuses a denoiser that is given more than noisy latents, such as a masked picture.

        Raises:
            ValueError: its channels are not those of the latents, in patches of `patch`.
        """
        config: Any = self.denoiser.config
        given = int(config.in_channels)
        latents = int(pipeline.vae.config["latent_channels"]) * self.patch**2
        if given != latents:
            raise ValueError(
                f"base model {self.name}: its {self.denoiser_component} takes {given} channels "
                f"where latents have {latents}; models that are given a mask or another picture "
                "beside them cannot be measured"
            )

    @property
    def device(self) -> torch.device:
        """Where the denoiser lives."""
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in."""
        return next(self.denoiser.parameters()).dtype

    def beside(self) -> Mapping[str, nn.Module]:
        """Every network of the pipeline but the denoiser; see `BaseModel`."""
        return {
            name: one
            for name, one in self.pipeline.components.items()
            if isinstance(one, nn.Module) and one is not self.denoiser
        }

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width in pixels that `encode_pictures` expects."""
        return self._picture_size

    @property
    def is_own_size(self) -> bool:
        """Whether `picture_size` is the one that the model was trained for; see `BaseModel`."""
        return self._picture_size == self._default_picture_size()

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Float [n, 3, h, w] in [-1, 1] to scaled latents [n, c, h', w'] (the posterior's mode)."""
        vae = self.pipeline.vae
        latents = vae.encode(pictures.to(self.device, vae.dtype)).latent_dist.mode()
        shift = vae.config.get("shift_factor") or 0.0
        scaled: Tensor = (latents - shift) * vae.config["scaling_factor"]
        return scaled.to(self.dtype)

    def convert_keys(
        self, tensors: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Renames LoRA keys through the pipeline class's own `lora_state_dict`; see `BaseModel`."""
        # some converters scale factors of text encoders where they are, and the file's are read on
        own = {
            name: tensor.clone() if name.startswith(_TEXT_ENCODERS) else tensor
            for name, tensor in tensors.items()
        }
        converted = type(self.pipeline).lora_state_dict(own, **self._conversion_options())
        if isinstance(converted, tuple):
            state_dict, alphas = converted
        else:
            state_dict, alphas = converted, None
        return dict(state_dict), dict(alphas or {})

    def _conversion_options(self) -> dict[str, Any]:
        return {}

    def _default_picture_size(self) -> tuple[int, int]:
        size: Any = getattr(self.denoiser.config, "sample_size", None) or getattr(
            self.pipeline, "default_sample_size", 64
        )
        height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
        factor = self.pipeline.vae_scale_factor
        return height * factor, width * factor
