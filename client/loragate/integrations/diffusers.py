"""Lets a diffusers pipeline load only adapters that the service allows, and only the audited bytes.

from loragate import AdapterBlocked, AuditClient
from loragate.integrations.diffusers import guard

with AuditClient() as client, guard(pipeline, client, base_model="sdxl"):
    try:
        pipeline.load_lora_weights("style.safetensors", adapter_name="style")
    except AdapterBlocked as blocked:
        print(blocked.result.findings)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from loragate.client import AuditClient
from loragate.errors import AdapterBlocked
from loragate.reference import read_once
from loragate.results import AuditResult, Verdict

OnReview = Literal["block", "allow"]

_WEIGHT_NAME = "pytorch_lora_weights.safetensors"

# Keywords that say where the weights are. They are used up here; the original method gets a
# place of its own, where only the audited bytes are.
_HUB_KEYWORDS = ("revision", "token", "cache_dir", "force_download", "local_files_only")
_PLACE_KEYWORDS = (*_HUB_KEYWORDS, "weight_name", "subfolder", "proxies", "use_safetensors")


def guard(
    pipeline: Any,
    client: AuditClient,
    *,
    base_model: str = "",
    on_review: OnReview = "block",
    strength: float | None = None,
) -> Guard:
    """Replaces `load_lora_weights` of this pipeline object by one that asks first.

    The guard works until `release()`, or to the end of its `with` block. It covers
    `load_lora_weights` alone: code that reaches into the pipeline, for example with
    `pipeline.unet.load_lora_adapter`, goes past it. Each adapter is audited by itself; audit
    adapters that are active together with `client.audit([...])`.

    Args:
        pipeline: a diffusers pipeline that can load LoRA weights.
        client: asks the service; its `on_unavailable` decides when there is no answer.
        base_model: name under which the service knows the pipeline's model; empty for its default.
        on_review: what to do with a verdict of REVIEW. INCONCLUSIVE is never loaded.
        strength: strongest use that will be made of the adapters; None for 1.

    Raises:
        TypeError: the pipeline cannot load LoRA weights.
        ValueError: `on_review` is neither "block" nor "allow".
    """
    if not callable(getattr(pipeline, "load_lora_weights", None)):
        raise TypeError(f"{type(pipeline).__name__} has no load_lora_weights to guard.")
    if on_review not in ("block", "allow"):
        raise ValueError(f"on_review must be 'block' or 'allow', not {on_review!r}.")
    loadable = {Verdict.ALLOW} | ({Verdict.REVIEW} if on_review == "allow" else set())
    return Guard(pipeline, client, base_model, frozenset(loadable), strength)


class Guard:
    """A guarded pipeline; made by `guard`."""

    def __init__(
        self,
        pipeline: Any,
        client: AuditClient,
        base_model: str,
        loadable: frozenset[Verdict],
        strength: float | None,
    ) -> None:
        self._pipeline = pipeline
        self._client = client
        self._base_model = base_model
        self._loadable = loadable
        self._strength = strength
        self._own_before = vars(pipeline).get("load_lora_weights")
        self._original: Callable[..., Any] = pipeline.load_lora_weights
        self._installed = self._load
        pipeline.load_lora_weights = self._installed

    def release(self) -> None:
        """Gives the pipeline its own method back. May be called twice.

        Raises:
            RuntimeError: a guard that was put on later is still there.
        """
        present = vars(self._pipeline).get("load_lora_weights")
        if self._installed is None:
            return
        if present is not self._installed:
            raise RuntimeError("Release guards in the reverse order of their making.")
        if self._own_before is None:
            del self._pipeline.load_lora_weights
        else:
            self._pipeline.load_lora_weights = self._own_before
        self._installed = None  # type: ignore[assignment]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def _load(
        self,
        pretrained_model_name_or_path_or_dict: str | os.PathLike[str] | Mapping[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Stands in for `load_lora_weights`, with the same arguments.

        Raises:
            AdapterBlocked: the service decided against the adapter; the pipeline is untouched.
            AuditError: no decision exists; the pipeline is untouched.
        """
        source = pretrained_model_name_or_path_or_dict
        if isinstance(source, Mapping):
            data, name = _serialise(source), "state dict"
            place = {}
        else:
            place = {key: kwargs.pop(key) for key in _PLACE_KEYWORDS if key in kwargs}
            path = _locate(source, place)
            data, name = read_once(path), path.name
        result = self._client.audit(data, base_model=self._base_model, strength=self._strength)
        self._refuse_unless_loadable(name, result)
        if isinstance(source, Mapping):
            return self._original(_parse(data), *args, **kwargs)
        return self._load_bytes(data, args, kwargs)

    def _refuse_unless_loadable(self, name: str, result: AuditResult) -> None:
        if result.verdict not in self._loadable:
            raise AdapterBlocked(name, result)

    def _load_bytes(self, data: bytes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Loads from a folder that nobody else can enter.

        A state dict would be simpler, but diffusers reads `lora_adapter_metadata` (alphas, ranks)
        from the header of a file only; without it other weights would be active than were audited.
        """
        with tempfile.TemporaryDirectory(prefix="loragate-") as folder:
            (Path(folder) / _WEIGHT_NAME).write_bytes(data)
            return self._original(
                folder, *args, weight_name=_WEIGHT_NAME, use_safetensors=True, **kwargs
            )


def _locate(source: str | os.PathLike[str], place: Mapping[str, Any]) -> Path:
    """The local file that is meant, after a download where it names a repository.

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

    options = {key: place[key] for key in _HUB_KEYWORDS if place.get(key) is not None}
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


def _serialise(tensors: Mapping[str, Any]) -> bytes:
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


def _parse(data: bytes) -> dict[str, Any]:
    """The tensors of a safetensors file."""
    from safetensors.torch import load

    return load(data)
