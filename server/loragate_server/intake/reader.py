"""Reads a stored file into an `Adapter`."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors
import safetensors.torch

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.adapter import Adapter, Readings, StoredFile
from loragate_server.intake.convert import convert
from loragate_server.intake.metadata import parse_adapter_config, parse_lora_adapter_metadata
from loragate_server.models.base import BaseModel

DECLARED_ENTRIES = 64
DECLARED_LETTERS = 1024


def read_adapter(stored: StoredFile, base: BaseModel) -> Readings:
    """Makes deltas for `base` of a file that the pre-parser has accepted.

    An adapter that fits the base model in part or not at all is returned all the same; its
    coverage says so.

    Raises:
        NoDecisionError: ADAPTER_METADATA_INVALID for a configuration that no loader could use;
            SOURCE_UNREADABLE if the stored file has gone.
    """
    try:
        with safetensors.safe_open(stored.path, framework="pt") as file:
            header: Mapping[str, str] = file.metadata() or {}
        tensors = safetensors.torch.load_file(stored.path)
    except (OSError, safetensors.SafetensorError) as error:
        raise NoDecisionError(
            ErrorReason.SOURCE_UNREADABLE,
            f"The stored copy of {stored.sha256} cannot be read: {error}.",
            remedy="Ask again; the file will be fetched anew.",
            metadata={"sha256": stored.sha256},
        ) from error
    config = None if stored.config_json is None else parse_adapter_config(stored.config_json)
    converted = convert(tensors, base, config=config, metadata=parse_lora_adapter_metadata(header))
    adapter = Adapter(
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        format=converted.format,
        deltas=converted.deltas,
        coverage=converted.coverage,
        declared=_declared(header),
        config_sha256=stored.config_sha256,
    )
    return Readings((adapter,))


def _declared(header: Mapping[str, str]) -> dict[str, str]:
    """Header metadata, bounded in number and length: it is shown and logged, never trusted."""
    names = sorted(header)[:DECLARED_ENTRIES]
    return {name[:DECLARED_LETTERS]: header[name][:DECLARED_LETTERS] for name in names}
