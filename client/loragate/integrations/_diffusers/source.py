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
Weights = str | os.PathLike[str] | Mapping[str, Any]


def read_source(source: Weights, kwargs: dict[str, Any]) -> tuple[bytes, str]:
    """The bytes that a load call means, and their name. Takes the place out of the keywords.

    Raises:
        OSError: the file cannot be read.
        TypeError, ValueError: the source is not one that can be audited.
    """
    if not isinstance(source, Mapping):
        place = {key: kwargs.pop(key) for key in _PLACE_KEYWORDS if key in kwargs}
        path = locate(source, place)
        return read_once(path), path.name
    if kwargs.get("network_alphas") or kwargs.get("metadata"):
        raise ValueError(
            "network_alphas and metadata change what the tensors do and cannot be audited beside "
            "a state dict. Save it with its metadata and load the file."
        )
    return serialise(source), "state dict"
