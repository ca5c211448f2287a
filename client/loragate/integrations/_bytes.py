"""Where the bytes of an adapter come from, and the private copy from which they are loaded."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import finalize

from loragate.files import read_once

WEIGHT_NAME = "pytorch_lora_weights.safetensors"
HUB_KEYWORDS = ("revision", "token", "cache_dir", "force_download", "local_files_only")
"""What a load call may say about a download, as `huggingface_hub` names it."""


class PrivateCopies:
    """Copies of audited adapters in a folder that only this user can enter, named by digest.

    A loader that takes a path gets one of these: nobody who can write to the original can change
    what is loaded. The folder goes with `close()`, with this object, or with the
    process.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="loragate-"))
        self.close = finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def put(self, data: bytes) -> Path:
        """Writes the bytes, and returns the file that holds exactly them."""
        folder = self._folder / hashlib.sha256(data).hexdigest()
        path = folder / WEIGHT_NAME
        if not path.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
            # Beside its place first: another thread must not find half a file.
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                file.write(data)
            Path(file.name).replace(path)
        return path

    def get(self, sha256: str) -> bytes:
        """The bytes with a digest.

        Raises:
            KeyError: no such bytes were put here, or the disk has changed them.
        """
        try:
            data = read_once(self._folder / sha256 / WEIGHT_NAME)
        except OSError as error:
            raise KeyError(sha256) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise KeyError(sha256)
        return data


def locate(source: str | os.PathLike[str], place: Mapping[str, Any]) -> Path:
    """The local file that is meant, after a download where it names a repository.

    Args:
        source: file, folder, or "owner/name" of a hub repository.
        place: `weight_name`, `subfolder` and the `HUB_KEYWORDS`, each as far as it was given.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there is more than one, and no `weight_name` to choose.
    """
    path = Path(source)
    weight_name = place.get("weight_name")
    subfolder = place.get("subfolder") or ""
    if path.is_file():
        return path
    if path.is_dir():
        folder = path / subfolder
        return folder / (weight_name or _only([f.name for f in folder.iterdir()], str(folder)))
    return _download(os.fspath(source), weight_name, subfolder, place)


def _download(
    repository: str, weight_name: str | None, subfolder: str, place: Mapping[str, Any]
) -> Path:
    """Fetches the weights of a hub repository into the local cache."""
    from huggingface_hub import HfApi, hf_hub_download

    options = {key: place[key] for key in HUB_KEYWORDS if place.get(key) is not None}
    if weight_name is None:
        if options.get("local_files_only"):
            raise ValueError(f"Without a network, {repository} needs a weight_name.")
        api = HfApi(token=options.get("token"))
        names = api.list_repo_files(repository, revision=options.get("revision"))
        prefix = f"{subfolder}/" if subfolder else ""
        inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        weight_name = _only([name for name in inside if "/" not in name], repository)
    return Path(hf_hub_download(repository, weight_name, subfolder=subfolder or None, **options))


def _only(names: list[str], place: str) -> str:
    """The one safetensors file among names. Several are not guessed among."""
    found = sorted(name for name in names if name.endswith(".safetensors"))
    if not found:
        raise FileNotFoundError(f"There is no .safetensors file in {place}.")
    if len(found) > 1:
        raise ValueError(f"{place} holds {', '.join(found)}; choose one with weight_name.")
    return found[0]


def serialise(tensors: Mapping[str, Any]) -> bytes:
    """A state dict as a safetensors file, which can be audited like any other.

    Raises:
        TypeError: a value is not a tensor.
    """
    import torch
    from safetensors.torch import save

    wrong = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise TypeError(f"The state dict has a value that is not a tensor: {wrong[0]!r}.")
    # Clones, because tensors that share memory cannot be saved.
    return save(
        {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    )


def parse(data: bytes) -> dict[str, Any]:
    """The tensors of a safetensors file."""
    from safetensors.torch import load

    return load(data)
