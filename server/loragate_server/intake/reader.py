"""Reads a stored file into an `Adapter`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from loragate_server.adapter.adapter import Adapter, KeyCoverage, Readings
from loragate_server.adapter.reference import Kind, StoredFile
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.convert import Converted, convert
from loragate_server.intake.embedding import refuse_embedding
from loragate_server.intake.header import outline_of
from loragate_server.intake.loader_rules.names import LOADERS
from loragate_server.intake.metadata import parse_adapter_config, parse_lora_adapter_metadata
from loragate_server.intake.store import read_stored
from loragate_server.intake.words import read_words
from loragate_server.models.base import BaseModel
from loragate_server.models.once import once_per_base
from loragate_server.progress import Leash

DECLARED_ENTRIES = 64
DECLARED_LETTERS = 1024

_TAKE_WORDS = frozenset({"diffusers", "comfyui", "a1111"})
"""Loaders that load embeddings."""


def read_adapter(
    stored: StoredFile,
    base: BaseModel,
    leash: Leash | None = None,
    *,
    kind: Kind = "lora",
    loaders: Sequence[str] = LOADERS,
    data: bytes | None = None,
) -> Readings:
    """Makes deltas for `base`, or a new word, of a file that the pre-parser has accepted.

    An adapter that fits the base model in part or not at all is returned all the same; its
    coverage says so. Where loaders disagree about the same bytes, there is one adapter per meaning.

    Args:
        stored: the file and what lay beside it.
        base: the base model.
        leash: polled between reading and understanding.
        kind: what the file was sent as.
        loaders: those that may load the file, see `loader_rules.names.LOADERS`.
        data: the checked bytes, where they are in no store; else they are read from there.

    Raises:
        NoDecisionError: EMBEDDING_REFUSED for a file that is or holds an embedding of new words
            and was sent as a LoRA; EMBEDDING_INVALID for one that was sent as an embedding and is
            none for this base model; WEIGHTS_NOT_FINITE for rows that float32 does not hold;
            ADAPTER_METADATA_INVALID for a configuration that no loader could use;
            ADAPTER_NOT_STORED if the stored file has gone or was changed; SOURCE_UNREADABLE for
            another file that cannot be read.
    """
    leash = leash or Leash()
    try:
        data = read_stored(stored) if data is None else data
        header, names = outline_of(data)
        loaded = safetensors.torch.load(data)  # in an order of its own
        del data  # the tensors hold copies
    except (OSError, safetensors.SafetensorError) as error:
        raise NoDecisionError(
            ErrorReason.SOURCE_UNREADABLE,
            f"The stored copy of {stored.sha256} cannot be read: {error}.",
            remedy="Ask again; the file will be fetched anew.",
            metadata={"sha256": stored.sha256},
        ) from error
    tensors = {name: loaded[name] for name in names}
    if kind == "embedding":
        return _embedding(stored, tensors, header, base, loaders)
    refuse_embedding(tensors, _widths_of_words(base))
    config = None if stored.config_json is None else parse_adapter_config(stored.config_json)
    leash.check()
    converted = convert(
        tensors,
        base,
        config=config,
        metadata=parse_lora_adapter_metadata(header),
        header=header,
        loaders=loaders,
    )
    adapters = tuple(
        Adapter(
            sha256=stored.sha256,
            size_bytes=stored.size_bytes,
            format=converted.format,
            deltas=reading.deltas,
            coverage=reading.coverage,
            declared=_declared(header),
            config_sha256=stored.config_sha256,
            loaders=reading.loaders,
        )
        for reading in converted.readings
    )
    return Readings(adapters, converted.refused, _doubts(stored.sha256, converted))


def _embedding(
    stored: StoredFile,
    tensors: Mapping[str, Tensor],
    header: Mapping[str, str],
    base: BaseModel,
    loaders: Sequence[str],
) -> Readings:
    """A new word, which all loaders that take one read alike."""
    named, words = read_words(tensors, base)
    made = Adapter(
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        format=named,
        deltas={},
        coverage=KeyCoverage(len(tensors), len(tensors), (), len(words)),
        declared=_declared(header),
        loaders=tuple(name for name in loaders if name in _TAKE_WORDS),
        words={component: rows.to(base.device) for component, rows in words.items()},
    )
    return Readings((made,))


@once_per_base
def _widths_of_words(base: BaseModel) -> frozenset[int]:
    """How wide the words are that the text encoders of a base model read."""
    return frozenset(
        module.in_features
        for (part, _), module in base.adaptable_modules().items()
        if part.startswith("text_encoder") and isinstance(module, torch.nn.Linear)
    )


def _doubts(sha256: str, converted: Converted) -> tuple[tuple[str, str], ...]:
    """What reading left open: loaders that nobody can speak for, and why tensors are left over."""
    doubts = [
        (
            "loader_unknown",
            f"What {loader} would make of adapter {sha256[:12]} cannot be told: {why}.",
        )
        for loader, why in converted.unknown.items()
    ]
    if not converted.unknown and converted.readings[0].loaders == () and converted.refused:
        whys = "; ".join(f"{loader}: {why}" for loader, why in converted.refused.items())
        doubts.append(("no_loader", f"No loader would load adapter {sha256[:12]}: {whys}."))
    doubts += [(code, f"Of adapter {sha256[:12]}: {told}") for code, told in converted.causes]
    return tuple(doubts)


def _declared(header: Mapping[str, str]) -> dict[str, str]:
    """Header metadata, bounded in number and length: it is shown and logged, never trusted."""
    names = sorted(header)[:DECLARED_ENTRIES]
    return {name[:DECLARED_LETTERS]: header[name][:DECLARED_LETTERS] for name in names}
