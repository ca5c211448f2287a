"""Tensors on disk, concept by concept: written once, checked when read.

What a base model makes of a concept depends on the model, on the concept's own pictures and prompt,
and on the plan, and on no other concept. So each has a file named after all that decides its
content: a library with one concept more computes one, whoever computed the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.files import at_most_one, whole_file
from loragate_server.models.base import BaseModel
from loragate_server.progress import Report

KEPT_OTHERS = 4
"""Libraries on the same base model whose files stay besides: several servers may share a folder."""

_ASK_AGAIN_S = 0.1
"""Between two looks at what others make."""

Tensors = dict[str, Tensor]


class TensorCache:
    """A folder of tensors that one base model makes of concepts. Several servers may share it.

    Args:
        folder: created when missing.
        purpose: the first part of the files' names, and what progress is reported as.
        base: the base model.
        depends: whatever else decides the content of all concepts alike, as text.

    Attributes:
        stem: what the files' names begin with.
    """

    def __init__(self, folder: Path, purpose: str, base: BaseModel, *depends: str) -> None:
        dtype = next(base.denoiser.parameters()).dtype
        self._common = (base.digest, str(dtype), str(base.picture_size), *depends)
        self._folder = folder
        self._purpose = purpose
        self.stem = f"{purpose}-{base.digest[:16]}"

    def each(
        self, concepts: Sequence[str], make: Callable[[int], Tensors], report: Report
    ) -> list[Tensors]:
        """The tensors of every concept, on the CPU; what is missing is made and kept.

        Processes that share the folder share the work: what another one makes just now is left to
        it, and waited for in the end.

        Args:
            concepts: by concept what its tensors depend on, as text.
            make: called with the number of a concept that is missing.
            report: told the purpose and the share of concepts that are there, where any is made.
                What it raises ends the work.

        Raises:
            NoDecisionError: DISK_FULL.
        """
        paths = self.paths(concepts)
        found = [read_checked(path) for path in paths]
        missing = [number for number, tensors in enumerate(found) if tensors is None]
        left = missing
        while left:
            elsewhere: list[int] = []
            for done, number in enumerate(left):
                report(self._purpose, 1 - (len(left) - done + len(elsewhere)) / len(found))
                found[number] = self._made(paths[number], number, make)
                if found[number] is None:
                    elsewhere.append(number)
            if len(elsewhere) == len(left):
                time.sleep(_ASK_AGAIN_S)
            left = elsewhere
        if missing:
            report(self._purpose, 1.0)
            self._remove_oldest(paths)
        return [tensors for tensors in found if tensors is not None]

    def paths(self, concepts: Sequence[str]) -> list[Path]:
        """Where the tensors of every concept are, or would be."""
        return [self._path(concept) for concept in concepts]

    def _made(self, path: Path, number: int, make: Callable[[int], Tensors]) -> Tensors | None:
        """The tensors of a concept, made unless they are there; None while another makes them."""
        with at_most_one(path.with_suffix(".lock")) as own:
            tensors = read_checked(path)  # another may have made it since
            if tensors is None and own:
                tensors = make(number)
                self._write(path, tensors)
        return tensors

    def _path(self, concept: str) -> Path:
        key = hashlib.sha256("\0".join((*self._common, concept)).encode()).hexdigest()
        return self._folder / f"{self.stem}-{key[:32]}.safetensors"

    def _write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as unfinished:
                save_file(dict(tensors), unfinished, metadata={"sha256": sha256_of(tensors)})
        except (OSError, SafetensorError) as error:
            raise NoDecisionError(
                ErrorReason.DISK_FULL,
                f"The probes cannot be written to {self._folder}: {error}.",
                remedy="Make room there, or let the server write there.",
            ) from error

    def _remove_oldest(self, own: Sequence[Path]) -> None:
        """Removes the files of other libraries that have not been used for longest."""
        others = {*self._folder.glob(f"{self.stem}-*.safetensors")} - {*own}
        for other in sorted(others, key=_last_use)[: -KEPT_OTHERS * len(own)]:
            with contextlib.suppress(OSError):  # another server's, which may still use it
                other.unlink()


def read_checked(path: Path, *, mapped: bool = False) -> Tensors | None:
    """The tensors by name; None unless a whole and undamaged file is there.

    Args:
        path: of the file.
        mapped: whether they stay on disk until they are used, which takes three times as long where
            there are many small ones.
    """
    try:
        with safe_open(path, framework="pt" if mapped else "np") as file:
            tensors = {name: torch.as_tensor(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    if sha256_of(tensors) != expected:
        return None
    with contextlib.suppress(OSError):
        path.touch()  # its age is that of its last use
    return tensors


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another server removed it meanwhile
        return 0.0


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Lower-case hexadecimal digest over names and bytes, by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()
