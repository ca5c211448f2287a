"""Names what an audit runs on: so it can be told whether another one could give the same bits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import version

import torch
from torch import Tensor

from loragate_server.audit.evidence import Machine
from loragate_server.audit.materials import Materials
from loragate_server.models.base import BaseModel

PACKAGES = ("loragate-server", "torch", "diffusers", "transformers", "peft", "safetensors", "numpy")
"""Whose versions decide over the last bits of a number."""


def machine_of(base: BaseModel, materials_digest: str, batch_rows: int) -> Machine:
    """What an audit would run on now.

    Args:
        base: the base model.
        materials_digest: see `digest_of`.
        batch_rows: probe rows per block of a forward pass.
    """
    return Machine(
        materials_digest,
        _device(base.device),
        str(next(base.denoiser.parameters()).dtype).removeprefix("torch."),
        torch.get_num_threads(),
        batch_rows,
        torch.get_float32_matmul_precision(),
        dict(_versions()),
    )


@cache
def _versions() -> Mapping[str, str]:
    """Read once: it takes a twentieth of an audit, and no package changes under a process."""
    return {name: version(name) for name in PACKAGES}


def digest_of(materials: Materials) -> str:
    """Lower-case hexadecimal sha256 over every probe and every gradient, in a fixed order."""
    found = hashlib.sha256()
    for name, tensor in _tensors(materials):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _tensors(materials: Materials) -> Iterator[tuple[str, Tensor]]:
    for number, probes in enumerate(materials.sets):
        for name in ("noisy", "target", "times"):
            yield f"probes {number} {name}", getattr(probes, name)
    if materials.gradients is not None:
        for ref in sorted(materials.gradients.norms, key=repr):
            layer = materials.gradients.layers[ref]
            yield f"norms {ref!r}", materials.gradients.norms[ref]
            yield f"left {ref!r} {layer.lengths}", layer.left
            yield f"right {ref!r}", layer.right


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
