"""Tensors on disk that depend on a base model and a library: written once, checked when read."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.files import whole_file
from loragate_server.models.base import BaseModel

KEPT_OTHERS = 4
"""Files of other libraries on the same base model that stay: several servers may share a folder."""


class TensorCache:
    """One file per base model and purpose, named after everything its content depends on.

    Several servers may share the folder.

    Args:
        folder: created when missing.
        purpose: the first part of the file's name.
        base: the base model.
        depends: whatever else decides the content, as text.
    """

    def __init__(self, folder: Path, purpose: str, base: BaseModel, *depends: str) -> None:
        dtype = next(base.denoiser.parameters()).dtype
        parts = (base.digest, str(dtype), str(base.picture_size), *depends)
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        self._others = f"{purpose}-{base.digest[:16]}-*.safetensors"
        self._path = folder / f"{purpose}-{base.digest[:16]}-{key[:32]}.safetensors"

    def read(self) -> dict[str, Tensor] | None:
        """The tensors by name, on the CPU; None unless a whole and undamaged file is there."""
        try:
            with safe_open(self._path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                expected = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError):
            return None
        if _sha256(tensors) != expected:
            return None
        with contextlib.suppress(OSError):
            self._path.touch()  # its age is that of its last use
        return tensors

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts the file in place as a whole, and removes the oldest of other libraries.

        Raises:
            NoDecisionError: DISK_FULL.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self._path) as partial:
                save_file(dict(tensors), partial, metadata={"sha256": _sha256(tensors)})
        except (OSError, SafetensorError) as error:
            raise NoDecisionError(
                ErrorReason.DISK_FULL,
                f"The probes cannot be written to {self._path.parent}: {error}.",
                remedy="Make room there, or let the server write there.",
            ) from error
        others = [path for path in self._path.parent.glob(self._others) if path != self._path]
        for other in sorted(others, key=_last_use)[: -KEPT_OTHERS or None]:
            with contextlib.suppress(OSError):  # another server's, which may still use it
                other.unlink()


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another server removed it meanwhile
        return 0.0


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()
