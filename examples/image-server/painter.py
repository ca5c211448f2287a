"""`Painter`: a diffusers pipeline with named adapters, used by one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL.Image import Image

GUIDANCE = 3.0
_PER_REQUEST = "lora-of-this-request"


class LoraError(Exception):
    """An adapter cannot be used; the text says why."""


@dataclass(frozen=True)
class Lora:
    """An adapter that is in memory."""

    nickname: str
    path: str


class Painter:
    """Loads adapters by path, mixes them by strength, and paints.

    Whoever calls is trusted: any readable file is loaded. Keeping forbidden ones out is the work of
    what stands in front of the server.
    """

    def __init__(self, folder: Path) -> None:
        # The weights are stored in half precision, which few processors can calculate with.
        self._pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        self._pipeline.set_progress_bar_config(disable=True)
        self._loaded: dict[str, Lora] = {}
        self._strengths: dict[str, float] = {}
        self._lock = threading.Lock()
        self.side = self._pipeline.unet.config.sample_size * self._pipeline.vae_scale_factor
        """Width and height of a picture in pixels."""

    def set_loras(self, wanted: Mapping[str, tuple[str | None, float]]) -> None:
        """Makes exactly these adapters active.

        Args:
            wanted: for each nickname the file, and the strength. No file stands for the one that
                is in memory under this nickname; another file than that one replaces it.

        Raises:
            LoraError: a file cannot be loaded, or a nickname without a file is not known. What was
                active before stays active.
        """
        with self._lock:
            try:
                for nickname, (path, _) in wanted.items():
                    self._ensure(nickname, path)
            except LoraError:
                self._activate(self._strengths)
                raise
            self._strengths = {nickname: strength for nickname, (_, strength) in wanted.items()}
            self._activate(self._strengths)

    def clear(self) -> None:
        """Makes no adapter active; those in memory stay there."""
        self.set_loras({})

    def loaded(self) -> list[Lora]:
        """The adapters in memory."""
        with self._lock:
            return list(self._loaded.values())

    def active(self) -> list[tuple[Lora, float]]:
        """The adapters that pictures are painted with, and their strengths."""
        with self._lock:
            return [(self._loaded[name], value) for name, value in self._strengths.items()]

    def paint(
        self, prompt: str, *, count: int, steps: int, seed: int, lora: tuple[str, float] | None
    ) -> list[Image]:
        """Paints `count` pictures, with `lora` (file and strength) alone where one is given.

        Raises:
            LoraError: the file cannot be loaded.
        """
        with self._lock, self._only(lora):
            result = self._pipeline(
                [prompt] * count,
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                generator=torch.Generator().manual_seed(seed),
            )
        pictures: list[Image] = result.images
        return pictures

    @contextmanager
    def _only(self, lora: tuple[str, float] | None) -> Iterator[None]:
        """Another adapter in place of the active ones, for as long as the context lasts."""
        if lora is None:
            yield
            return
        path, strength = lora
        try:
            self._ensure(_PER_REQUEST, path)
            self._activate({_PER_REQUEST: strength})
            yield
        finally:
            self._forget(_PER_REQUEST)
            self._activate(self._strengths)

    def _ensure(self, nickname: str, path: str | None) -> None:
        known = self._loaded.get(nickname)
        if path is None and known is None:
            raise LoraError(f"no adapter is in memory under the nickname {nickname!r}; give a path")
        if path is None or (known is not None and known.path == path):
            return
        if not Path(path).is_absolute() or not Path(path).is_file():
            raise LoraError(f"{path!r} is not the absolute path of a file")
        self._forget(nickname)
        try:
            # Without use_safetensors diffusers tries a file that is damaged as a pickle.
            self._pipeline.load_lora_weights(path, adapter_name=nickname, use_safetensors=True)
        except Exception as error:  # diffusers, peft and safetensors raise what they like
            raise LoraError(f"{path!r} cannot be loaded: {error}") from error
        self._loaded[nickname] = Lora(nickname, path)

    def _activate(self, strengths: Mapping[str, float]) -> None:
        present = {name: value for name, value in strengths.items() if name in self._loaded}
        if present:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters(list(present), list(present.values()))
        elif self._loaded:
            self._pipeline.disable_lora()

    def _forget(self, nickname: str) -> None:
        if self._loaded.pop(nickname, None) is not None:
            self._pipeline.delete_adapters(nickname)
