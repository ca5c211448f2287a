"""The bytes that a call of `load_lora_weights` means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from loragate.files import read_once
from loragate.integrations._bytes import HUB_KEYWORDS, locate, serialise

# Keywords that say where the weights are. They are used up here; the original method gets a
# place of its own, where only the audited bytes are.
_PLACE_KEYWORDS = (*HUB_KEYWORDS, "weight_name", "subfolder", "proxies", "use_safetensors")
_MEANING_KEYWORDS = ("network_alphas", "metadata")
"""They change what the weights do, so that something else would be active than was audited."""
_HARMLESS_KEYWORDS = frozenset(
    {"adapter_name", "low_cpu_mem_usage", "load_into_transformer_2", "_pipeline"}
)
"""They say where the weights go and how, not which they are."""
Weights = str | os.PathLike[str] | Mapping[str, Any]


def read_source(source: Weights, kwargs: dict[str, Any]) -> tuple[bytes, str]:
    """The bytes that a load call means, and their name. Takes the place out of the keywords.

    Raises:
        OSError: the file cannot be read.
        TypeError, ValueError: the source, or a keyword, is not one that can be audited.
    """
    place = {key: kwargs.pop(key) for key in _PLACE_KEYWORDS if key in kwargs}
    _refuse_other_meaning(kwargs)
    if isinstance(source, Mapping):
        return serialise(source), "state dict"
    path = locate(source, place)
    return read_once(path), path.name


def _refuse_other_meaning(kwargs: dict[str, Any]) -> None:
    """Takes out keywords that say nothing, and refuses those that change what is loaded.

    Raises:
        TypeError: a keyword is not known, so that nobody can say what it changes.
        ValueError: one changes what the weights do.
    """
    for key in _MEANING_KEYWORDS:
        if kwargs.pop(key, None):
            raise ValueError(
                f"{key} changes what the weights do and cannot be audited beside them. "
                "Save the adapter as a file with its alphas or metadata in it, and load the file."
            )
    if unknown := sorted(set(kwargs) - _HARMLESS_KEYWORDS):
        raise TypeError(
            f"The guard does not know the keyword {unknown[0]!r}, which may change what is "
            "loaded. Leave it out, or save the adapter as it shall be loaded."
        )
