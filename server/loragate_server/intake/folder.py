"""Which file of a folder an image server would load, where every loader chooses the same one."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from loragate_server.errors import ErrorReason, NoDecisionError

MOST_ENTRIES = 10_000
"""Entries of a folder that are looked through."""

_OTHER_WEIGHTS = (
    ".sft",
    ".bin",
    ".pt",
    ".pt2",
    ".pth",
    ".ckpt",
    ".pkl",
    ".gguf",
    ".h5",
    ".msgpack",
)
_STATES = ("optimizer", "scheduler", "training_args", "rng_state", "random_states", "scaler")
"""Files that trainers leave beside the weights, and that no loader takes for them."""


def choose(folder: int, weight_name: str | None, path: str) -> str:
    """The name of the weights in an open folder.

    Loaders prefer different names (`pytorch_lora_weights.safetensors`, `adapter_model.bin`, the
    parts that an index lists), so a folder with more than one choice has to be asked about by name.

    Raises:
        NoDecisionError: SOURCE_NOT_FOUND where there is not one choice; PATH_NOT_ALLOWED for a
            `weight_name` that is no plain name.
    """
    if weight_name:
        if weight_name in (".", "..") or PurePosixPath(weight_name).name != weight_name:
            raise _refused(
                ErrorReason.PATH_NOT_ALLOWED,
                f"The weight_name {weight_name[:500]!r} is no plain file name.",
                weight_name,
            )
        return weight_name
    safe, others = _weights(folder, path)
    if len(safe) != 1:
        raise _refused(
            ErrorReason.SOURCE_NOT_FOUND,
            f"Folder {path[:500]!r} holds {len(safe)} safetensors files.",
            path,
        )
    if others:
        raise _refused(
            ErrorReason.SOURCE_NOT_FOUND,
            f"Folder {path[:500]!r} holds {safe[0][:200]!r} and {others[0][:200]!r}, which other "
            "loaders would load instead.",
            path,
        )
    return safe[0]


def _weights(folder: int, path: str) -> tuple[list[str], list[str]]:
    """The safetensors files, and what else may hold weights or say where they are."""
    safe, others = [], []
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count >= MOST_ENTRIES:
                raise _refused(
                    ErrorReason.SOURCE_NOT_FOUND,
                    f"Folder {path[:500]!r} holds more than {MOST_ENTRIES} files.",
                    path,
                )
            name = entry.name.lower()
            if name.endswith(".safetensors"):
                safe.append(entry.name)
            elif name.endswith(".index.json") or (
                name.endswith(_OTHER_WEIGHTS) and not any(state in name for state in _STATES)
            ):
                others.append(entry.name)
    return sorted(safe), sorted(others)


def _refused(reason: ErrorReason, message: str, path: str) -> NoDecisionError:
    return NoDecisionError(
        reason,
        message,
        remedy="Name one file of the folder in weight_name.",
        metadata={"path": path[:500]},
    )
