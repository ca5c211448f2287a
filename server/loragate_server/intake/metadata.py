"""Reads what an uploader wrote about an adapter: JSON, bounded and strict.

Nothing here is believed. What it says about rank and alpha decides what a loader would apply, so it
has to be read exactly as a loader reads it, and refused where two loaders could disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from loragate_server import strict_json
from loragate_server.errors import ErrorReason, NoDecisionError

ADAPTER_CONFIG = "adapter_config.json"
LORA_ADAPTER_METADATA = "lora_adapter_metadata"

MAX_LETTERS = 1 << 20
MAX_DEPTH = 16


def parse_adapter_config(text: str) -> Mapping[str, Any]:
    """The `adapter_config.json` that peft writes beside the weights.

    Raises:
        NoDecisionError: ADAPTER_METADATA_INVALID.
    """
    return _parse(text, ADAPTER_CONFIG)


def parse_lora_adapter_metadata(header: Mapping[str, str]) -> Mapping[str, Any] | None:
    """The header entry that diffusers writes, or None without one.

    Raises:
        NoDecisionError: ADAPTER_METADATA_INVALID.
    """
    text = header.get(LORA_ADAPTER_METADATA)
    return None if text is None else _parse(text, LORA_ADAPTER_METADATA)


def _parse(text: str, field: str) -> dict[str, Any]:
    if len(text) > MAX_LETTERS:
        _refuse(field, f"has {len(text):,} letters, more than {MAX_LETTERS:,}")
    try:
        value = strict_json.read(text)
    except strict_json.DoubledNameError as error:
        _refuse(field, f"holds {error.name[:80]!r} twice")
    except strict_json.NoNumberError as error:
        _refuse(field, f"holds {error.text}, which is no JSON number")
    except (ValueError, RecursionError) as error:
        _refuse(field, f"is not JSON ({error})")
    if not isinstance(value, dict):
        _refuse(field, f"is a JSON {type(value).__name__}, not an object")
    if "auto_map" in value:
        _refuse("auto_map", f"in {field} names code to run")
    if strict_json.nesting(value) > MAX_DEPTH:
        _refuse(field, f"is nested more than {MAX_DEPTH} levels deep")
    return value


def _refuse(field: str, what: str) -> NoReturn:
    raise NoDecisionError(
        ErrorReason.ADAPTER_METADATA_INVALID,
        f"The adapter's {field} {what}.",
        remedy="Save the adapter again with peft or diffusers, or take the entry out.",
        metadata={"field": field},
    )
