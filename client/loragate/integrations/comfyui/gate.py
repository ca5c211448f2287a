"""Stands before the functions through which ComfyUI finds, reads and applies LoRAs."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from loragate._reading import read_once
from loragate.integrations._bytes import AuditedCopies, serialise
from loragate.integrations._together import Gatekeeper
from loragate.reference import AdapterReference

_USES = "loragate"
"""Key in a model's options, which its clones inherit: the LoRAs that were applied before."""


class AuditedTensors(dict[str, Any]):
    """The tensors of a file, with the digest of its bytes as long as nobody has changed them."""

    def __init__(self, tensors: dict[str, Any], sha256: str) -> None:
        super().__init__(tensors)
        self._sha256 = sha256
        self._seal = self._state()

    @property
    def sha256(self) -> str | None:
        """The digest; None where a node has changed something since."""
        return self._sha256 if self._state() == self._seal else None

    def _state(self) -> tuple[tuple[str, int, int], ...]:
        # torch counts changes in place in `_version`.
        return tuple((key, id(value), getattr(value, "_version", 0)) for key, value in self.items())


class ComfyGate:
    """Each method gets the function it stands before as its first argument."""

    def __init__(self, keeper: Gatekeeper) -> None:
        self._keeper = keeper
        self._copies = AuditedCopies()
        self._paths: dict[str, str] = {}  # digests of the copies, by their paths
        self._inside = threading.local()

    def admit_file(self, path: str | os.PathLike[str], strength: float, clip: float) -> Path:
        """Audits a file as it will be used; returns the private copy of exactly its bytes.

        Raises:
            AdapterBlocked: the service decided against it.
            AuditError: no decision exists.
        """
        data = read_once(path)
        reference = AdapterReference(data=data, strength=strength, text_encoder_strength=clip)
        self._keeper.admit(Path(path).name, [reference])
        copy = self._copies.put(data)
        self._paths[str(copy)] = reference.sha256
        return copy

    def admit_name(self, name: str, strength: float, clip: float) -> None:
        """As `admit_file`, for the name of a LoRA as graphs have it.

        Raises:
            FileNotFoundError: there is no such LoRA.
        """
        with self._within():
            path = import_module("folder_paths").get_full_path("loras", name)
        if path is None:
            raise FileNotFoundError(f"There is no LoRA {name!r}.")
        self.admit_file(path, strength, clip)

    def get_full_path(
        self, original: Callable[..., Any], folder_name: str, filename: str
    ) -> str | None:
        """Leads to the audited copy of a LoRA. Whoever asks for its path will load it."""
        asked_from_outside = not self._is_busy()
        with self._within():
            path: str | None = original(folder_name, filename)
        if folder_name != "loras" or path is None or not asked_from_outside:
            return path
        return str(self.admit_file(path, 1.0, 1.0))

    get_full_path_or_raise = get_full_path

    def load_torch_file(
        self, original: Callable[..., Any], ckpt: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Remembers with the tensors from which bytes they are; audits what comes unaudited."""
        path = str(ckpt)
        if path not in self._paths and self._is_lora(path):
            path = str(self.admit_file(path, 1.0, 1.0))
        loaded = original(path, *args, **kwargs)
        sha256 = self._paths.get(path)
        if sha256 is None:
            return loaded
        if isinstance(loaded, tuple):
            return (AuditedTensors(loaded[0], sha256), *loaded[1:])
        return AuditedTensors(loaded, sha256)

    def load_lora_for_models(
        self,
        original: Callable[..., Any],
        model: Any,
        clip: Any,
        lora: dict[str, Any],
        strength_model: float,
        strength_clip: float,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Audits a LoRA at its strengths, with those that the model and the encoder have already.

        Raises:
            AdapterBlocked: the service decided against it, alone or in this company.
            AuditError: no decision exists.
        """
        if strength_model == 0 and strength_clip == 0:
            return original(model, clip, lora, strength_model, strength_clip, *args, **kwargs)
        new = (
            self._digest(lora),
            float(strength_model) if model is not None else 0.0,
            float(strength_clip) if clip is not None else 0.0,
        )
        # A chain of nodes applies each LoRA to model and encoder alike: it counts once.
        uses = (*dict.fromkeys((*_uses_of(model), *_uses_of(clip))), new)
        self._ask(uses)
        with self._within():
            made = original(model, clip, lora, strength_model, strength_clip, *args, **kwargs)
        for part in made:
            options = _options_of(part)
            if options is not None:
                options[_USES] = uses
        return made

    def load_lora(
        self, original: Callable[..., Any], lora: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Audits what a node applies by itself, past `load_lora_for_models`."""
        if not self._is_busy():
            self._ask([(self._digest(lora), 1.0, 1.0)])
        return original(lora, *args, **kwargs)

    def _digest(self, lora: dict[str, Any]) -> str:
        """The digest of the file of these tensors, or of a file made of what they are now."""
        known = lora.sha256 if isinstance(lora, AuditedTensors) else None
        if known is not None:
            return known
        data = serialise(lora)
        self._copies.put(data)
        return hashlib.sha256(data).hexdigest()

    def _ask(self, uses: Iterable[tuple[str, float, float]]) -> None:
        references = [
            AdapterReference(
                data=self._copies.get(sha256), strength=denoiser, text_encoder_strength=encoder
            )
            for sha256, denoiser, encoder in uses
        ]
        self._keeper.admit("The LoRA", references)

    def _is_lora(self, path: str) -> bool:
        """Whether a path lies in a folder of LoRAs, wherever links lead."""
        folders = import_module("folder_paths").get_folder_paths("loras")
        real = Path(path).resolve()
        return any(
            Path(path).absolute().is_relative_to(Path(folder).absolute())
            or real.is_relative_to(Path(folder).resolve())
            for folder in folders
        )

    @contextmanager
    def _within(self) -> Iterator[None]:
        """ComfyUI's functions call each other; only the outermost one asks."""
        self._inside.depth = getattr(self._inside, "depth", 0) + 1
        try:
            yield
        finally:
            self._inside.depth -= 1

    def _is_busy(self) -> bool:
        return getattr(self._inside, "depth", 0) > 0


def _options_of(part: Any) -> dict[str, Any] | None:
    """The options of a model, or of the model inside an encoder."""
    options = getattr(getattr(part, "patcher", part), "model_options", None)
    return options if isinstance(options, dict) else None


def _uses_of(part: Any) -> tuple[tuple[str, float, float], ...]:
    return tuple((_options_of(part) or {}).get(_USES, ()))
