"""Refuses an `adapter_config.json` that changes what the weights beside it do.

Only the file of the weights is sent to the service from here, so that it would be audited as it is
without its configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from loragate._reading import read_once

CONFIG_NAME = "adapter_config.json"
_LARGEST_BYTES = 1024 * 1024
_CHANGING = (
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "modules_to_save",
    "layers_to_transform",
    "exclude_modules",
)
_REMEDY = (
    "Save the adapter with diffusers' save_lora_weights, which keeps alphas in the file itself, "
    "fold them into it, or have the service read the folder by its path."
)


def require_plain(weights: Path) -> None:
    """Makes sure that no configuration beside a file of weights changes what they do.

    Raises:
        OSError: there is one that cannot be read.
        ValueError: there is one that scales, leaves out or adds something, or makes no sense.
    """
    path = weights.parent / CONFIG_NAME
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        if path.is_symlink():
            raise ValueError(f"{path} leads nowhere. {_REMEDY}") from None
        return
    if size > _LARGEST_BYTES:
        raise ValueError(f"{path} has {size} bytes, more than any configuration. {_REMEDY}")
    try:
        config = json.loads(read_once(path))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not sound JSON. {_REMEDY}") from error
    plain = isinstance(config, Mapping) and not any(config.get(key) for key in _CHANGING)
    if not plain or config.get("lora_alpha") != config.get("r"):
        raise ValueError(f"{path} changes what the weights beside it do. {_REMEDY}")
