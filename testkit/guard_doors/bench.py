"""A tiny real pipeline with two adapters, and what is needed to change it in many ways."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from testkit.tiny_models import WIDTH, tiny_pipeline

TARGETS = ["to_q", "to_v"]
TEXT_TARGETS = ["q_proj", "v_proj"]
FILE = "pytorch_lora_weights.safetensors"


def config(*, text: bool = False) -> LoraConfig:
    """Settings of an adapter that is not nothing from the beginning."""
    targets = TEXT_TARGETS if text else TARGETS
    return LoraConfig(r=2, lora_alpha=8, target_modules=list(targets), init_lora_weights=False)


@dataclass(frozen=True)
class Files:
    """Adapters and embeddings in one folder, made once."""

    folder: Path

    @cached_property
    def a(self) -> str:
        """A LoRA for UNet and text encoder, as diffusers saves it."""
        return self._lora("a", seed=1)

    @cached_property
    def b(self) -> str:
        """Another one of the same shape."""
        return self._lora("b", seed=2)

    @cached_property
    def of_unet(self) -> str:
        """A LoRA for the UNet alone."""
        whole = load_file(self.b)
        path = self.folder / "of_unet.safetensors"
        save_file({name: one for name, one in whole.items() if name.startswith("unet.")}, path)
        return str(path)

    @cached_property
    def of_peft(self) -> str:
        """A folder with an adapter of the UNet, as peft saves it."""
        torch.manual_seed(3)
        model = get_peft_model(tiny_pipeline("sd").unet, config())
        place = self.folder / "peft"
        model.save_pretrained(place)
        assert isinstance(model, PeftModel)
        return str(place)

    @cached_property
    def of_text(self) -> str:
        """A folder with an adapter of the text encoder, as transformers saves it."""
        torch.manual_seed(4)
        encoder = tiny_pipeline("sd").text_encoder
        encoder.add_adapter(config(text=True))
        place = self.folder / "text"
        encoder.save_pretrained(place)
        return str(place)

    @cached_property
    def embedding(self) -> str:
        """A textual inversion of the word `cat` by another token."""
        torch.manual_seed(5)
        path = self.folder / "learned_embeds.safetensors"
        save_file({"<learned>": torch.randn(1, WIDTH)}, path)
        return str(path)

    @cached_property
    def unet(self) -> str:
        """The weights of another UNet."""
        path = self.folder / "unet.safetensors"
        save_file(tiny_pipeline("sd", 6).unet.state_dict(), path)
        return str(path)

    @cached_property
    def custom_diffusion(self) -> dict[str, torch.Tensor]:
        """Keys and values of cross attention, as Custom Diffusion trains them."""
        torch.manual_seed(7)
        found: dict[str, torch.Tensor] = {}
        for name, width in _attentions():
            found[name] = torch.empty(0)
            if "attn2" in name:
                for part in ("to_k", "to_v"):
                    weight = torch.randn(width, WIDTH)
                    found[f"{name}.{part}_custom_diffusion.weight"] = weight
                del found[name]
        return found

    @cached_property
    def ip_adapter(self) -> dict[str, dict[str, torch.Tensor]]:
        """A tiny IP-Adapter."""
        torch.manual_seed(8)
        projection = {
            "proj.weight": torch.randn(4 * WIDTH, WIDTH),
            "proj.bias": torch.randn(4 * WIDTH),
            "norm.weight": torch.ones(WIDTH),
            "norm.bias": torch.zeros(WIDTH),
        }
        crossing = [width for name, width in _attentions() if "attn2" in name]
        attention = {
            f"{2 * number + 1}.{part}_ip.weight": torch.randn(width, WIDTH)
            for number, width in enumerate(crossing)
            for part in ("to_k", "to_v")
        }
        return {"image_proj": projection, "ip_adapter": attention}

    def tensors(self, path: str) -> dict[str, torch.Tensor]:
        """The tensors of one of them."""
        return load_file(path)

    def _lora(self, name: str, seed: int) -> str:
        torch.manual_seed(seed)
        pipeline = tiny_pipeline("sd")
        pipeline.unet.add_adapter(config())
        pipeline.text_encoder.add_adapter(config(text=True))
        StableDiffusionPipeline.save_lora_weights(
            self.folder / name,
            unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
            text_encoder_lora_layers=get_peft_model_state_dict(
                pipeline.text_encoder, adapter_name="default"
            ),
        )
        return str(self.folder / name / FILE)


def _attentions() -> list[tuple[str, int]]:
    """The attentions of the UNet, with the width of what they attend from."""
    unet = tiny_pipeline("sd").unet
    return [
        (name, unet.get_submodule(name.removesuffix(".processor")).to_q.out_features)
        for name in unet.attn_processors
    ]


@dataclass
class Bench:
    """A pipeline that a door changes.

    Attributes:
        pipe: the pipeline.
        files: what can be loaded.
        draw: how its picture is made; a door that is an argument of the call changes it.
    """

    pipe: Any
    files: Files
    draw: Any = None

    def picture(self) -> torch.Tensor:
        """What it draws now."""
        return self.draw() if self.draw else self.drawn()

    def drawn(self, pipe: Any = None, **options: Any) -> torch.Tensor:
        """One picture, always of the same noise."""
        pipe = pipe or self.pipe
        if "prompt_embeds" not in options:
            options.setdefault("prompt", "a red cat")
        made = pipe(
            num_inference_steps=1,
            guidance_scale=1.0,
            height=16,
            width=16,
            generator=torch.Generator().manual_seed(1),
            output_type="pt",
            **options,
        )
        picture: torch.Tensor = made.images
        return picture

    def layers(self, model: Any) -> list[Any]:
        """The layers of a model that hold adapters."""
        return [one for one in model.modules() if isinstance(one, LoraLayer)]


def bare_pipeline() -> Any:
    """The pipeline without adapters, always the same one."""
    pipeline = tiny_pipeline("sd")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
