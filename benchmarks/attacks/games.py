"""Files that mean one thing to one loader and another to the next: alphas and headers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.attacks.factors import Factors, Shapes

Game = Callable[[Factors, Shapes], tuple[dict[str, Tensor], dict[str, str] | None]]


def _kohya(own: Factors) -> dict[str, Tensor]:
    made = {}
    for name, (down, up) in own.items():
        stem = "lora_unet_" + name.replace(".", "_")
        made[f"{stem}.lora_down.weight"] = down.contiguous()
        made[f"{stem}.lora_up.weight"] = up.contiguous()
        made[f"{stem}.alpha"] = torch.tensor(float(len(down)))
    return made


def _processors(own: Factors, sign: float) -> dict[str, Tensor]:
    made = {}
    for name, (down, up) in own.items():
        stem = "unet." + name.replace(".to_", ".processor.to_").removesuffix(".0") + "_lora"
        made[f"{stem}.down.weight"] = (down * sign).contiguous()
        made[f"{stem}.up.weight"] = up.contiguous()
    return made


def alphas_outvoted(value: float) -> Game:
    """All alphas distinct but for those of two empty convolutions, which share this one."""

    def game(own: Factors, shapes: Shapes) -> tuple[dict[str, Tensor], None]:
        made = _kohya(own)
        for number, key in enumerate(key for key in made if key.endswith(".alpha")):
            made[key] = made[key] * (1 + 5e-5 * number)
        for name in [name for name, shape in shapes.items() if len(shape) == 4][:2]:
            stem, shape = "lora_unet_" + name.replace(".", "_"), shapes[name]
            made[f"{stem}.lora_down.weight"] = torch.zeros(4, *shape[1:])
            made[f"{stem}.lora_up.weight"] = torch.zeros(shape[0], 4, 1, 1)
            made[f"{stem}.alpha"] = torch.tensor(value)
        return made, None

    return game


def negative_twice(own: Factors, _: Shapes) -> tuple[dict[str, Tensor], None]:
    """Weights turned round, and an alpha beside them that turns them back for some loaders."""
    made = _processors(own, -1.0)
    for name, (down, _up) in own.items():
        made[f"unet.{name.removesuffix('.0')}.alpha"] = torch.tensor(-float(len(down)))
    return made, None


def header_alpha(value: float) -> Game:
    """A header that scales everything by this alpha over the rank, for the loaders that read it."""

    def game(own: Factors, _: Shapes) -> tuple[dict[str, Tensor], dict[str, str]]:
        ranks = {len(down) for down, _ in own.values()}
        declared = {
            "unet.r": max(ranks),
            "unet.lora_alpha": value,
            "unet.target_modules": sorted({name.split(".")[-1] for name in own}),
            "unet.peft_type": "LORA",
        }
        return _processors(own, 1.0), {"lora_adapter_metadata": json.dumps(declared)}

    return game


GAMES: dict[str, Game] = {
    "most common alpha is -4": alphas_outvoted(-4.0),
    "most common alpha is 0": alphas_outvoted(0.0),
    "turned round, alpha -rank beside it": negative_twice,
    "header says lora_alpha -4": header_alpha(-4.0),
    "header says lora_alpha 0": header_alpha(0.0),
}


def write_game(name: str, own: Factors, shapes: Shapes, file: Path) -> Path:
    """Writes the file of one game."""
    tensors, header = GAMES[name](own, shapes)
    save_file(tensors, file, metadata=header)
    return file
