"""Adapters as factors that can be changed and written to a file again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.algebra import LowRank
from loragate_server.adapter.reference import StoredFile
from loragate_server.intake.reader import read_adapter
from loragate_server.models.base import BaseModel

Factors = dict[str, tuple[Tensor, Tensor]]
"""Layer of the denoiser to (down [r, in, ...], up [out, r, ...]), all scales folded into `up`."""

Shapes = Mapping[str, tuple[int, ...]]
"""Every layer of the denoiser that an adapter may change, to the shape of its weight."""


def read_file(file: Path, base: BaseModel) -> Adapter:
    """The adapter of a file as diffusers reads it, which also trained it and draws with it."""
    data = file.read_bytes()
    stored = StoredFile(hashlib.sha256(data).hexdigest(), len(data), file)
    readings = read_adapter(stored, base).adapters
    return next(one for one in readings if not one.loaders or "diffusers" in one.loaders)


def factors_of(adapter: Adapter) -> Factors:
    """The factors of a plain LoRA of the denoiser, float32."""
    found = {}
    for ref, delta in adapter.deltas.items():
        assert isinstance(delta, LowRank)
        found[ref.module] = (delta.down.float(), delta.up.float() * delta.scale)
    return found


def shapes_of(base: BaseModel) -> Shapes:
    """The layers of the denoiser, in the model's order."""
    found = {}
    for (component, name), module in base.adaptable_modules().items():
        if component == base.denoiser_component:
            assert isinstance(module.weight, Tensor)
            found[name] = tuple(module.weight.shape)
    return found


def write_file(factors: Factors, file: Path, order: Sequence[int] = ()) -> Path:
    """Writes factors without alphas, which every loader reads at scale 1.

    Args:
        factors: float32.
        file: to write.
        order: where each tensor's bytes lie, as a permutation; as sorted when empty.
    """
    tensors = {}
    for name, (down, up) in factors.items():
        tensors[f"unet.{name}.lora_A.weight"] = down.contiguous()
        tensors[f"unet.{name}.lora_B.weight"] = up.contiguous()
    if not order:
        save_file(tensors, file)
        return file
    names = sorted(tensors)
    header, parts, at = {}, [], 0
    for index in order:
        part = tensors[names[index]].numpy().tobytes()
        header[names[index]] = {
            "dtype": "F32",
            "shape": list(tensors[names[index]].shape),
            "data_offsets": [at, at + len(part)],
        }
        parts.append(part)
        at += len(part)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    file.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(parts))
    return file


def joined(*parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The sum of several products as one product of higher rank."""
    return torch.cat([down for down, _ in parts]), torch.cat([up for _, up in parts], dim=1)
