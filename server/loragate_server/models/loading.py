"""Makes a `BaseModel` from a folder in diffusers layout, or from a pipeline in memory."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from torch import nn

from loragate_server.files import files_below
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
SAME_DENOISER: dict[str, str] = {
    **dict.fromkeys(
        (
            "StableDiffusionImg2ImgPipeline",
            "StableDiffusionInpaintPipeline",
            "LatentConsistencyModelPipeline",
            "LatentConsistencyModelImg2ImgPipeline",
        ),
        "StableDiffusionPipeline",
    ),
    **dict.fromkeys(
        ("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"),
        "StableDiffusionXLPipeline",
    ),
    **dict.fromkeys(
        ("StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
        "StableDiffusion3Pipeline",
    ),
    **dict.fromkeys(
        (
            "FluxImg2ImgPipeline",
            "FluxInpaintPipeline",
            "FluxKontextPipeline",
            "FluxKontextInpaintPipeline",
        ),
        "FluxPipeline",
    ),
}
"""Pipelines that use the denoiser in another way, and the one as which they are loaded. A model
whose denoiser takes more than latents, as most for inpainting do, is refused by its channels."""

_PARTS_OF_A_MODEL = frozenset({".json", ".txt", ".model", ".safetensors"})
INDEX, WEIGHTS = "model_index.json", ".safetensors"
_JUDGES = ("safety_checker", "feature_extractor", "image_encoder")
_UNUSABLE = (
    *(OSError, ValueError, TypeError, AttributeError, RuntimeError, LookupError, MemoryError),
    *(ImportError, SafetensorError),
)
"""What libraries raise over a folder that they cannot load."""
_CHUNK_BYTES = 1 << 22
_VARIANT = re.compile(r"\.(?P<mark>[a-z]\w*)(?:-\d{5}-of-\d{5})?\.safetensors\Z")
"""What stands before the end of a file's name where it is one of several variants."""


class BaseModelError(Exception):
    """A base model cannot be served; the message names the folder and the cause."""


def load_base_model(
    folder: Path,
    name: str,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    picture_size: tuple[int, int] | None = None,
) -> BaseModel:
    """Loads a base model from `folder`, which holds a `model_index.json`.

    Only safetensors are read, never a pickle, and nothing is fetched from elsewhere.

    Args:
        folder: a pipeline as `save_pretrained` writes it.
        name: the name by which requests know the model.
        device: a torch device.
        dtype: what its weights are held in.
        picture_size: height and width in pixels, where the model's own is not wanted.

    Raises:
        BaseModelError: no such folder, an unknown kind of pipeline, unreadable parts, or a model
            that is used in a way that is not measured.
    """
    kind = pipeline_class_name(folder)
    digest = digest_of_folder(folder)
    try:
        pipeline = getattr(diffusers, kind).from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            variant=variant_of(folder),
            **_without_judges(kind),
        )
        pipeline.set_progress_bar_config(disable=True)
        return FAMILIES[kind](pipeline.to(device), name, digest, picture_size=picture_size)
    except _UNUSABLE as error:
        raise BaseModelError(f"{folder}: {error or type(error).__name__}") from error


def _without_judges(kind: str) -> dict[str, bool | None]:
    """What a pipeline looks at pictures with, for which an audit has no use: it is not loaded.

    Folders that name these parts are often passed on without them.
    """
    known = inspect.signature(getattr(diffusers, kind).__init__).parameters
    left_out = {**dict.fromkeys(_JUDGES), "requires_safety_checker": False}
    return {name: value for name, value in left_out.items() if name in known}


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
    """sha256 (lower-case hexadecimal) over names, sizes and bytes of configuration and weights.

    Of what is loaded: other variants, checkpoints in one file and parts that the index does not
    name may come and go beside them.
    """
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
    yield folder / INDEX
    variant = variant_of(folder) or ""
    for part in _parts_of(folder):
        files = [
            path
            for path in files_below(folder / part)
            if path.suffix in _PARTS_OF_A_MODEL
            and not any(name.startswith(".") for name in path.relative_to(folder).parts)
            and path.is_file()
        ]
        marks = {mark_of(path) for path in files if path.suffix == WEIGHTS}
        loaded = variant if variant in marks else ""
        yield from (path for path in files if path.suffix != WEIGHTS or mark_of(path) == loaded)


def _parts_of(folder: Path) -> frozenset[str]:
    """The folders of a pipeline that its index names, but those of which nothing is loaded."""
    described = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    named = (name for name in described if not name.startswith("_") and name not in _JUDGES)
    return frozenset(name for name in named if (folder / name).is_dir())


def variant_of(folder: Path) -> str | None:
    """Which variant of the weights a folder holds, such as "fp16"; None where they have no mark.

    Raises:
        BaseModelError: components have weights of several variants alone, so that none is whole.
    """
    marks: dict[str, set[str]] = {}
    parts = _parts_of(folder)
    for path in folder.glob(f"*/*{WEIGHTS}"):
        if path.parent.name not in parts:
            continue
        marks.setdefault(path.parent.name, set()).add(mark_of(path))
    marked = [each for each in marks.values() if "" not in each]
    if not marked:
        return None
    common = set.intersection(*marked)
    if not common:
        each = ", ".join(f"{name}: {'/'.join(sorted(marks[name]))}" for name in sorted(marks))
        raise BaseModelError(f"{folder}: no variant of the weights has all components ({each})")
    return min(common, key=lambda mark: (mark != "fp16", mark))


def mark_of(file: Path) -> str:
    """The mark of the variant that a file of weights belongs to; empty where it has none."""
    found = _VARIANT.search(file.name)
    return found["mark"] if found else ""


def pipeline_class_name(folder: Path) -> str:
    """The class of diffusers as which a folder is loaded, one of `FAMILIES`.

    Raises:
        BaseModelError: a checkpoint in one file, no index, or an unknown kind of pipeline.
    """
    _refuse_single_file(folder)
    index = folder / "model_index.json"
    try:
        described = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{index}: {error}") from error
    kind = described.get("_class_name") if isinstance(described, dict) else None
    kind = SAME_DENOISER.get(str(kind), str(kind))
    if kind not in FAMILIES:
        known = ", ".join((*FAMILIES, *SAME_DENOISER))
        raise BaseModelError(f"{index}: _class_name {kind!r} is not one of {known}")
    return kind


def _refuse_single_file(path: Path) -> None:
    """A checkpoint in one file says neither which schedule it has nor which tokenizer."""
    inside = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    alone = path.is_file() or (inside and not (path / "model_index.json").exists())
    if alone:
        file = path if path.is_file() else inside[0]
        raise BaseModelError(
            f"{file} is a checkpoint in one file. Make a folder of it: load it by "
            "`from_single_file` of its class in diffusers, and write it by `save_pretrained`."
        )
