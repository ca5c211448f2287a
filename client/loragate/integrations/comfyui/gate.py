"""Stands before the functions through which ComfyUI finds, reads and applies LoRAs."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from loragate.files import read_once
from loragate.integrations._bytes import PrivateCopies, serialise
from loragate.integrations._together import Gatekeeper
from loragate.reference import AdapterReference
from loragate.results import AuditResult

_USES = "loragate"
"""Key in a model's options, which its clones inherit: the LoRAs that were applied before."""


@dataclass(frozen=True)
class Applied:
    """One application of a LoRA to a model, an encoder, or both.

    Attributes:
        sha256: of the file, or of one made of the tensors.
        model: strength for the model; 0 where none was given.
        clip: likewise for the encoder.
        token: tells it from another application of the same file, also after ComfyUI has copied
            the options that hold it.
    """

    sha256: str
    model: float
    clip: float
    token: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class _Lent:
    """A copy that may be loaded as long as its verdict holds."""

    name: str
    sha256: str
    result: AuditResult | None = None


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
        self._copies = PrivateCopies()
        self._lent: dict[str, _Lent] = {}  # by the paths of the copies
        self._inside = threading.local()

    def admit_name(self, name: str, strength: float, clip: float) -> None:
        """Audits a LoRA as it will be used, by its name in graphs.

        Raises:
            AdapterBlocked: the service decided against it.
            AuditError: no decision exists.
            FileNotFoundError: there is no such LoRA.
        """
        with self._within():
            path = import_module("folder_paths").get_full_path("loras", name)
        if path is None:
            raise FileNotFoundError(f"There is no LoRA {name!r}.")
        self._keeper.admit(name, [_reference(read_once(path), strength, clip)])

    def lend(self, path: str | os.PathLike[str]) -> Path:
        """A private copy of a file whose bytes were allowed at strength 1; raises as `admit_name`.

        Whoever asks for it may apply it without a further word.
        """
        data = read_once(path)
        copy = self._copies.put(data)
        self._admit_copy(copy, _Lent(Path(path).name, hashlib.sha256(data).hexdigest()))
        return copy

    def _admit_copy(self, copy: Path, lent: _Lent) -> None:
        reference = _reference(self._copies.get(lent.sha256), 1.0, 1.0)
        result = self._keeper.admit(lent.name, [reference])
        # Without the bytes, which would be kept once more.
        self._lent[str(copy)] = replace(lent, result=replace(result, audited_bytes=None))

    def get_full_path(
        self, original: Callable[..., Any], folder_name: str, filename: str
    ) -> str | None:
        """Leads to the audited copy of a LoRA. Whoever asks for its path will load it."""
        asked_from_outside = not self._is_busy()
        with self._within():
            path: str | None = original(folder_name, filename)
        if folder_name != "loras" or path is None or not asked_from_outside:
            return path
        return str(self.lend(path))

    get_full_path_or_raise = get_full_path

    def load_torch_file(
        self, original: Callable[..., Any], ckpt: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Remembers with the tensors from which bytes they are; audits what comes unaudited."""
        path = str(ckpt)
        if path not in self._lent and self._is_lora(path):
            path = str(self.lend(path))
        lent = self._lent.get(path)
        if lent is not None and not (lent.result and self._keeper.still_holds(lent.result)):
            # A node that kept the path brings it after the verdict has run out.
            self._admit_copy(Path(path), lent)
        loaded = original(path, *args, **kwargs)
        if lent is None:
            return loaded
        if isinstance(loaded, tuple):
            return (AuditedTensors(loaded[0], lent.sha256), *loaded[1:])
        return AuditedTensors(loaded, lent.sha256)

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
        new = Applied(
            self._digest(lora),
            float(strength_model) if model is not None else 0.0,
            float(strength_clip) if clip is not None else 0.0,
        )
        on_model, on_clip = (*_applied_to(model), new), (*_applied_to(clip), new)
        self._ask_about_both(on_model, on_clip)
        with self._within():
            made = original(model, clip, lora, strength_model, strength_clip, *args, **kwargs)
        for part, uses in zip(made, (on_model, on_clip), strict=False):
            options = _options_of(part)
            if options is not None:
                options[_USES] = uses
        return made

    def _ask_about_both(self, on_model: Sequence[Applied], on_clip: Sequence[Applied]) -> None:
        """Asks about what acts in these two parts, and about the other halves of it as well.

        What was applied to another model than this one must not count here: it could undo in the
        question what it does not undo in the picture. Yet the picture may be made with it.
        """
        here = [Applied(one.sha256, one.model, 0.0, one.token) for one in on_model]
        here += [Applied(one.sha256, 0.0, one.clip, one.token) for one in on_clip]
        # A chain of nodes applies each LoRA to model and encoder alike: it counts once.
        everywhere = list(dict.fromkeys((*on_model, *on_clip)))
        questions = [_strengths(here), _strengths(everywhere)]
        for uses in questions if questions[0] != questions[1] else questions[:1]:
            self._ask(uses)

    def load_lora(
        self, original: Callable[..., Any], lora: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Audits what a node applies by itself, past `load_lora_for_models`."""
        if not self._is_busy():
            self._ask({self._digest(lora): (1.0, 1.0)})
        return original(lora, *args, **kwargs)

    def _digest(self, lora: dict[str, Any]) -> str:
        """The digest of the file of these tensors, or of a file made of what they are now."""
        known = lora.sha256 if isinstance(lora, AuditedTensors) else None
        if known is not None:
            return known
        data = serialise(lora)
        self._copies.put(data)
        return hashlib.sha256(data).hexdigest()

    def _ask(self, uses: Mapping[str, tuple[float, float]]) -> None:
        """Asks about files by their digests, with strengths for the model and the encoder."""
        references = [
            _reference(self._copies.get(sha256), model, clip)
            for sha256, (model, clip) in uses.items()
            if model or clip
        ]
        if references:
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


def _applied_to(part: Any) -> tuple[Applied, ...]:
    return tuple((_options_of(part) or {}).get(_USES, ()))


def _strengths(uses: Iterable[Applied]) -> dict[str, tuple[float, float]]:
    """What applications of the same file add up to."""
    found: dict[str, tuple[float, float]] = {}
    for use in uses:
        model, clip = found.get(use.sha256, (0.0, 0.0))
        found[use.sha256] = (model + use.model, clip + use.clip)
    return found


def _reference(data: bytes, model: float, clip: float) -> AdapterReference:
    return AdapterReference(data=data, strength=model, text_encoder_strength=clip)
