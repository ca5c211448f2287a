"""What stays of the harmless adapters beside a calibration, so that it can grow with the library.

One file, `NAME.kept.safetensors` beside `NAME.json`. It says which concepts and which neutral bank
the calibration was made with, and holds of every harmless adapter the factors and what the
response stage measured on the bank.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel as Section
from pydantic import ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.audit.factors import Factors, adapter_of
from loragate_server.audit.materials import Materials
from loragate_server.files import whole_file
from loragate_server.models.base import BaseModel

_FORMAT = 1


class KeptError(Exception):
    """What was kept cannot be used; the message says why and what to do."""


def kept_file(calibration: Path) -> Path:
    """Where the file beside a calibration lies."""
    return calibration.with_name(f"{calibration.stem}.kept.safetensors")


class _Head(Section):
    """The file's metadata."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    calibration: str
    concepts: dict[str, str]
    bank: str
    layers: tuple[tuple[str, str], ...]
    adapters: dict[str, str]


@dataclass(frozen=True)
class KeptAdapter:
    """What is kept of one harmless adapter.

    Attributes:
        factors: of its change.
        bank_change: float64 [bank, strata], what the response stage measured on the neutral bank,
            with the factors as they are kept.
    """

    factors: Factors
    bank_change: Tensor


@dataclass(frozen=True)
class Kept:
    """An open file. Adapters are read a few at a time: together they may be larger than memory.

    Attributes:
        calibration: digest of the calibration that it belongs to.
        concepts: forbidden concept to what names it, see `Materials.shown`.
        bank: the same of the neutral bank.
    """

    file: Path
    head: _Head

    @property
    def calibration(self) -> str:
        """Digest of the calibration that the file belongs to."""
        return self.head.calibration

    @property
    def concepts(self) -> Mapping[str, str]:
        """The calibration's forbidden concepts: id to what is shown of each."""
        return self.head.concepts

    @property
    def bank(self) -> str:
        """What the calibration's neutral bank shows."""
        return self.head.bank

    def has(self, sha256: str) -> bool:
        """Whether an adapter was kept."""
        return sha256 in self.head.adapters

    def adapters(self, base: BaseModel, sha256s: Iterable[str]) -> list[tuple[Adapter, Tensor]]:
        """Adapters again, each with its `KeptAdapter.bank_change`.

        Raises:
            KeptError: the file is damaged, has gone, or is of another base model.
        """
        try:
            with safe_open(self.file, framework="pt") as file:
                return [self._read(file, base, sha256) for sha256 in sha256s]
        except (OSError, SafetensorError, KeyError, AttributeError, ValueError) as error:
            raise KeptError(_damaged(self.file)) from error

    def again(self, base: BaseModel) -> list[tuple[Adapter, Factors]]:
        """Every adapter again, each with its factors, in the order in which they were kept.

        Raises:
            KeptError: as `adapters`.
        """
        try:
            with safe_open(self.file, framework="pt") as file:
                every = [(sha256, self._factors(file, sha256)[0]) for sha256 in self.head.adapters]
                return [(adapter_of(base, sha256, one), one) for sha256, one in every]
        except (OSError, SafetensorError, KeyError, AttributeError, ValueError) as error:
            raise KeptError(_damaged(self.file)) from error

    def _read(self, file: Any, base: BaseModel, sha256: str) -> tuple[Adapter, Tensor]:
        factors, bank_change = self._factors(file, sha256)
        return adapter_of(base, sha256, factors), bank_change

    def _factors(self, file: Any, sha256: str) -> tuple[Factors, Tensor]:
        found = {part: file.get_tensor(f"{sha256}.{part}") for part in _PARTS}
        if _sha256(found) != self.head.adapters[sha256]:
            raise ValueError("the numbers are not those that were written")
        layers = tuple(ModuleRef(*self.head.layers[row]) for row in found["layers"].tolist())
        factors = Factors(layers, found["ranks"], found["codes"], found["scales"])
        return factors, found["bank_change"]


_PARTS = ("bank_change", "codes", "layers", "ranks", "scales")


def save_kept(
    file: Path, calibration: str, materials: Materials, adapters: Mapping[str, KeptAdapter]
) -> None:
    """Writes the file, whole or not at all.

    Args:
        file: see `kept_file`.
        calibration: digest of the calibration.
        materials: with which it was made.
        adapters: by sha256; may be empty, then the file only says what the calibration knows.

    Raises:
        OSError: it cannot be written.
    """
    layers: dict[ModuleRef, int] = {}
    tensors: dict[str, Tensor] = {}
    digests = {}
    for sha256, one in adapters.items():
        rows = [layers.setdefault(ref, len(layers)) for ref in one.factors.layers]
        parts = {
            "bank_change": one.bank_change,
            "codes": one.factors.codes,
            "layers": torch.tensor(rows, dtype=torch.int32),
            "ranks": one.factors.ranks,
            "scales": one.factors.scales,
        }
        digests[sha256] = _sha256(parts)
        tensors |= {f"{sha256}.{part}": tensor for part, tensor in parts.items()}
    head = _Head(
        format=_FORMAT,
        calibration=calibration,
        concepts={one.concept_id: materials.shown(one) for one in materials.forbidden},
        bank=materials.bank,
        layers=tuple((ref.component, ref.module) for ref in layers),
        adapters=digests,
    )
    with whole_file(file) as partial:
        try:
            save_file(tensors, partial, metadata={"kept": head.model_dump_json()})
        except SafetensorError as error:  # a full disk is one to it
            raise OSError(errno.EIO, str(error), str(file)) from error


def open_kept(file: Path) -> Kept:
    """Opens what was kept beside a calibration.

    Raises:
        KeptError: there is no such file, or it is damaged or of another format.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get("kept", "")
        if (version := json.loads(text).get("format")) != _FORMAT:
            raise KeptError(
                f"{file} has format {version}, not {_FORMAT}; make the calibration anew with "
                "`loragate-server calibrate`"
            )
        return Kept(file, _Head.model_validate_json(text))
    except FileNotFoundError as error:
        raise KeptError(
            f"nothing was kept beside the calibration ({file} is no file); make it anew with "
            "`loragate-server calibrate`"
        ) from error
    except (OSError, SafetensorError, ValueError, AttributeError, ValidationError) as error:
        raise KeptError(_damaged(file)) from error


def _damaged(file: Path) -> str:
    return f"{file} is damaged; make the calibration anew with `loragate-server calibrate`"


def _sha256(parts: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in _PARTS:
        digest.update(name.encode())
        digest.update(parts[name].contiguous().numpy().data)
    return digest.hexdigest()
