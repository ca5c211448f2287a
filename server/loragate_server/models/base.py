"""`BaseModel`: what the audit needs of an image model, whatever its family."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from loragate_server.models.word_table import WordTable


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser is told besides the noisy latents.

    Attributes:
        tensors: name to tensor whose first dimension is the batch, for example
            `encoder_hidden_states` float [n, tokens, width].
    """

    tensors: Mapping[str, Tensor]

    def rows(self, index: Tensor) -> Conditioning:
        """The conditioning of the rows in `index` (int64 [m])."""
        return Conditioning({name: value[index] for name, value in self.tensors.items()})

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Several conditionings of the same model, one after the other."""
        return Conditioning(
            {name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors}
        )


class BaseModel(ABC):
    """A text-to-image model in evaluation mode on one device, never changed by an audit.

    Attributes:
        name: the name by which requests know it.
        digest: lower-case hexadecimal sha256 over configuration and weights.
        family: "sd", "sdxl", "sd3" or "flux".
        denoiser_component: "unet" or "transformer".
        components: component name to module, for every module an adapter may touch: the
            denoiser and the text encoders, named as in the diffusers pipeline.
    """

    name: str
    digest: str
    family: str
    denoiser_component: str
    components: Mapping[str, nn.Module]
    _adaptable: Mapping[tuple[str, str], nn.Module] | None = None

    @property
    def denoiser(self) -> nn.Module:
        """The UNet or transformer."""
        return self.components[self.denoiser_component]

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model lives."""

    @property
    @abstractmethod
    def picture_size(self) -> tuple[int, int]:
        """Height and width in pixels that `encode_pictures` expects."""

    @property
    @abstractmethod
    def is_own_size(self) -> bool:
        """Whether `picture_size` is the one that the model was trained for, as its folder says."""

    @abstractmethod
    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Float [n, 3, h, w] in [-1, 1] to scaled latents [n, c, h', w'] (the posterior's mode)."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Runs the text encoders as they are now (hooks included) on `prompts`; n rows."""

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Noises `latents` [n, ...] to `times` (float [n] in (0, 1]; 1 is pure noise).

        Families with a discrete schedule use timestep `round(time * 1000) - 1`, clipped.
        """

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What a perfect denoiser would predict: epsilon, v or flow, by the model's schedule."""

    @abstractmethod
    def denoise(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """One forward pass of the denoiser, hooks included; same shape as `noisy`."""

    @abstractmethod
    def convert_keys(
        self, tensors: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Renames LoRA keys through the pipeline class's own `lora_state_dict`.

        Returns the state dict in diffusers/PEFT names and the network alphas by name, numbers or
        tensors as diffusers hands them on, which counts equal tensors as different. Scaling by
        alpha may already be folded into the tensors; then their alphas are not returned. `tensors`
        may be changed in place by some converters of diffusers.

        Raises:
            ValueError: diffusers does not know the keys.
        """

    def word_tables(self) -> Mapping[str, WordTable]:
        """By component, the tables of words of the text encoders that take new words.

        Empty for a family in whose prompts new words cannot be put here.
        """
        return {}

    def beside(self) -> Mapping[str, nn.Module]:
        """By name, what the denoiser does without while it works: text encoders and the VAE."""
        return {name: one for name, one in self.components.items() if one is not self.denoiser}

    def adaptable_modules(self) -> Mapping[tuple[str, str], nn.Module]:
        """Every linear and convolutional layer of `components`, by (component, dotted name).

        Looked for once: a walk through the modules takes longer than to screen an adapter.
        """
        if self._adaptable is None:
            self._adaptable = {
                (component, name): module
                for component, root in self.components.items()
                for name, module in root.named_modules()
                if isinstance(module, nn.Linear | nn.Conv2d)
            }
        return self._adaptable

    def with_components(self, components: Mapping[str, nn.Module]) -> Self:
        """The same model with other modules; what was found in the present ones is not its own."""
        other = copy.copy(self)
        other.components = components
        other._adaptable = None
        return other


def per_row_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error per row: float32 [n] from two tensors [n, ...]."""
    return (prediction.float() - target.float()).square().flatten(1).mean(dim=1)
