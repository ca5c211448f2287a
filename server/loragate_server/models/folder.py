"""What a folder in diffusers layout holds, as far as it shows without loading the model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from loragate_server.models.loading import (
    FAMILIES,
    BaseModelError,
    mark_of,
    pipeline_class_name,
    variant_of,
)

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""Suffixes of weights that run code of whoever made them while they are read."""

_WITH_WEIGHTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
_DENOISERS = ("unet", "transformer")
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
_POINTER = b"version https://git-lfs"
_SAVE = "load it once where you trust it and write it by `save_pretrained`, which gives safetensors"


@dataclass(frozen=True)
class BaseFolder:
    """A base model on disk.

    Attributes:
        family: "sd", "sdxl", "sd3" or "flux".
        pipeline: class of diffusers that it is loaded as.
        parts: components that it names and has, in the order of its index.
        dtype: what most numbers of the denoiser are stored in, as torch names it.
        numbers: parameters and tables of the denoiser.
        weights_bytes: size of the weights that would be loaded.
        variant: of the weights, such as "fp16"; empty where they have no mark.
    """

    folder: Path
    family: str
    pipeline: str
    parts: tuple[str, ...]
    dtype: str
    numbers: int
    weights_bytes: int
    variant: str


def look_at(folder: Path) -> BaseFolder:
    """Reads the index and the headers of the weights; no tensor.

    Raises:
        BaseModelError: no such folder, a checkpoint in one file, pickled weights, an unknown kind
            of pipeline, a part that is missing, or a file that is cut off. Says what to do.
    """
    _require_folder(folder)
    kind = pipeline_class_name(folder)
    parts = _parts(folder)
    variant = variant_of(folder) or ""
    weights = {part: _weights(folder, part, variant) for part in parts if part in _WITH_WEIGHTS}
    [denoiser] = [part for part in weights if part in _DENOISERS] or [""]
    if not denoiser:
        raise BaseModelError(f"{folder}: its index names neither a unet nor a transformer")
    counted: Counter[str] = Counter()
    for part, files in weights.items():
        for file in files:
            found = _numbers(file)
            if part == denoiser:
                counted.update(found)
    most, _ = counted.most_common(1)[0] if counted else ("", 0)
    return BaseFolder(
        folder,
        FAMILIES[kind].family,
        kind,
        parts,
        _DTYPES.get(most, most),
        sum(counted.values()),
        sum(file.stat().st_size for files in weights.values() for file in files),
        variant,
    )


def _require_folder(folder: Path) -> None:
    if folder.is_file() and folder.suffix.lower() in PICKLES:
        raise BaseModelError(f"{folder} is a pickle, which runs code of whoever made it: {_SAVE}")
    if not folder.exists():
        raise BaseModelError(
            f"there is no {folder}; name a folder that `save_pretrained` of diffusers has written"
        )
    if folder.is_dir() and not (folder / "model_index.json").exists():
        pickled = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICKLES)
        if pickled:
            raise BaseModelError(f"{pickled[0]} is a pickle: {_SAVE}")
        if (folder / "config.json").exists() or not any(folder.glob("*.safetensors")):
            raise BaseModelError(
                f"{folder} has no model_index.json; name the folder of a whole pipeline, not of "
                "one of its parts"
            )


def _parts(folder: Path) -> tuple[str, ...]:
    index = folder / "model_index.json"
    described = json.loads(index.read_text(encoding="utf-8"))
    parts = []
    for name, value in described.items():
        named = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
        if name.startswith("_") or not named or value[1] is None:
            continue
        if not (folder / name).is_dir():
            if name not in _WITH_WEIGHTS and not name.startswith(("scheduler", "tokenizer")):
                continue  # safety checkers and the like, without which a model is audited as well
            raise BaseModelError(
                f"{folder}: its part {name} is missing, which {index.name} names; copy the whole "
                "pipeline"
            )
        parts.append(name)
    return tuple(parts)


def _weights(folder: Path, part: str, variant: str) -> list[Path]:
    """The files of one part, of the variant that is loaded."""
    inside = folder / part
    if not (inside / "config.json").is_file():
        raise BaseModelError(f"{inside} has no config.json; copy the whole pipeline")
    found = sorted(inside.glob("*.safetensors"))
    if not found:
        pickled = sorted(path.name for path in inside.iterdir() if path.suffix in PICKLES)
        if pickled:
            raise BaseModelError(
                f"{inside}: its weights are pickled ({pickled[0]}), which is never read: {_SAVE}"
            )
        raise BaseModelError(f"{inside} holds no weights (*.safetensors); copy the whole pipeline")
    chosen = [path for path in found if mark_of(path) == variant]
    for shard in _shards(inside, variant if chosen else ""):
        if not (inside / shard).is_file():
            raise BaseModelError(f"{inside}: {shard} is missing, which its index names")
    return chosen or found


def _shards(inside: Path, variant: str) -> set[str]:
    """Names of the files that the index of sharded weights names, of the variant that is loaded."""
    names: set[str] = set()
    mark = f".{variant}" if variant else ""
    for index in inside.glob(f"*.safetensors.index{mark}.json"):
        try:
            described = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names |= {str(name) for name in described.values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BaseModelError(f"{index} cannot be read ({type(error).__name__})") from error
    return names


def _numbers(file: Path) -> Mapping[str, int]:
    """By dtype, as safetensors names it, how many numbers the header of a file tells of."""
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            raise BaseModelError(
                f"{file} is a pointer of Git LFS and no weights; fetch them with `git lfs pull`"
            )
    counted: Counter[str] = Counter()
    try:
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - no mapping
                part = weights.get_slice(name)
                counted[part.get_dtype()] += prod(part.get_shape())
    except (OSError, SafetensorError) as error:
        raise BaseModelError(f"{file} is cut off or damaged: {error}; fetch it again") from error
    return counted
