"""Makes a `BaseModel` from a folder in diffusers layout, or from a pipeline in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from loragate_server.models.base import BaseModel
from loragate_server.models.pipeline import PipelineModel
from loragate_server.models.transformer import FluxModel, StableDiffusion3Model
from loragate_server.models.unet import StableDiffusionModel, StableDiffusionXLModel

FAMILIES: dict[str, type[PipelineModel]] = {
    "StableDiffusionPipeline": StableDiffusionModel,
    "StableDiffusionXLPipeline": StableDiffusionXLModel,
    "StableDiffusion3Pipeline": StableDiffusion3Model,
    "FluxPipeline": FluxModel,
}
_PARTS_OF_A_MODEL = frozenset({".json", ".txt", ".model", ".safetensors"})
_CHUNK_BYTES = 1 << 22


class BaseModelError(Exception):
    """A base model cannot be served; the message names the folder and the cause."""


def load_base_model(
    folder: Path, name: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> BaseModel:
    """Loads a base model from `folder`, which holds a `model_index.json`.

    Only safetensors are read, never a pickle, and nothing is fetched from elsewhere.

    Args:
        folder: a pipeline as `save_pretrained` writes it.
        name: the name by which requests know the model.
        device: a torch device.
        dtype: what its weights are held in.

    Raises:
        BaseModelError: no such folder, an unknown kind of pipeline, or unreadable parts.
    """
    kind = _pipeline_class_name(folder)
    digest = digest_of_folder(folder)
    try:
        pipeline = getattr(diffusers, kind).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise BaseModelError(f"{folder}: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    return FAMILIES[kind](pipeline.to(device), name, digest)


def from_pipeline(
    pipeline: Any, name: str, *, picture_size: tuple[int, int] | None = None
) -> BaseModel:
    """Makes a base model of a pipeline in memory, which belongs to it from then on.

    Args:
        pipeline: an instance of one of the classes in `FAMILIES`.
        name: the name by which requests know the model.
        picture_size: height and width in pixels, where the model's own is not wanted.

    Raises:
        BaseModelError: the pipeline is of another class.
    """
    kind = type(pipeline).__name__
    if kind not in FAMILIES:
        raise BaseModelError(f"{kind} is not one of {', '.join(FAMILIES)}")
    return FAMILIES[kind](pipeline, name, digest_of_pipeline(pipeline), picture_size=picture_size)


def digest_of_folder(folder: Path) -> str:
    """sha256 (lower-case hexadecimal) over names, sizes and bytes of configuration and weights."""
    digest = hashlib.sha256()
    for path in sorted(_model_files(folder), key=lambda path: path.relative_to(folder).as_posix()):
        with path.open("rb") as file:
            size = path.stat().st_size
            digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def digest_of_pipeline(pipeline: Any) -> str:
    """sha256 (lower-case hexadecimal) over the configurations and tensors of every component."""
    digest = hashlib.sha256(type(pipeline).__name__.encode())
    for name, component in sorted(pipeline.components.items()):
        config = getattr(component, "config", None)
        digest.update(f"\0{name}\0{_config_text(config)}".encode())
        if isinstance(component, nn.Module):
            for key, tensor in sorted(component.state_dict().items()):
                digest.update(f"\0{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _config_text(config: Any) -> str:
    if config is None:
        return ""
    fields = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return json.dumps(fields, sort_keys=True, default=str)


def _model_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in _PARTS_OF_A_MODEL and not hidden and path.is_file():
            yield path


def _pipeline_class_name(folder: Path) -> str:
    index = folder / "model_index.json"
    try:
        described = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{index}: {error}") from error
    kind = described.get("_class_name") if isinstance(described, dict) else None
    if kind not in FAMILIES:
        raise BaseModelError(f"{index}: _class_name {kind!r} is not one of {', '.join(FAMILIES)}")
    return str(kind)
