"""A strict reader of safetensors headers, run before anything else reads the file.

The reference parser accepts duplicate names (the last wins), unknown fields and more; another
loader may then see another adapter than the one that was audited. What this reader accepts means
the same to every loader.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from loragate_server import strict_json
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
"""Types that adapter weights have."""
INTEGER_BYTES = {f"{sign}{bits}": bits // 8 for sign in ("I", "U") for bits in (8, 16, 32, 64)}
"""Types that an alpha may have as well: trainers write what they were configured with."""
MAX_RANK = 8
_FIELDS = {"dtype", "shape", "data_offsets"}
_LENGTH_BYTES = 8
_LISTS, _VALUES = 2, MAX_RANK + 5
"""Lists and commas that the entry of one tensor may have."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor; `begin` and `end` count from `Header.data_start`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A checked header: tensors in the order of their bytes."""

    tensors: tuple[TensorEntry, ...]
    metadata: Mapping[str, str]
    data_start: int


def is_alpha_name(name: str) -> bool:
    """Whether a tensor of this name holds an alpha: `alpha`, `lora_alpha`, `network_alpha`."""
    return name.endswith("alpha")


def read_header(file: BinaryIO, size_bytes: int, settings: IntakeSection) -> Header:
    """Reads and checks the header of an open file.

    Args:
        file: positioned anywhere; left after the header.
        size_bytes: size of the whole file.
        settings: the limits.

    Raises:
        NoDecisionError: FILE_TRUNCATED, HEADER_INVALID, HEADER_LIMIT_EXCEEDED, DUPLICATE_NAME,
            OFFSETS_INVALID or DTYPE_UNSUPPORTED.
    """
    file.seek(0)
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    _limit("header_bytes", length, settings.max_header_bytes)
    if size_bytes < _LENGTH_BYTES + length:
        raise _truncated(_LENGTH_BYTES + length, size_bytes)
    content = _parse(file.read(length), settings)
    metadata = _metadata(content.pop("__metadata__", {}), settings)
    _limit("tensors", len(content), settings.max_tensors)
    if not content:
        raise _invalid("no_tensors", "The header lists no tensors.")
    entries = sorted(
        (_entry(name, value, settings) for name, value in content.items()),
        key=lambda entry: entry.begin,
    )
    start = _LENGTH_BYTES + length
    _check_offsets(entries, size_bytes - start, start)
    return Header(tuple(entries), metadata, start)


def outline_of(data: bytes) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Of a whole file that `read_header` has accepted: metadata, and names in order of their bytes.

    That is the order in which `safetensors.torch.load_file` gives tensors to loaders, some of which
    let the first or the last of several decide.
    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    content = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    metadata: Mapping[str, str] = content.pop("__metadata__", {})
    return metadata, tuple(sorted(content, key=lambda name: content[name]["data_offsets"][0]))


def _parse(raw: bytes, settings: IntakeSection) -> dict[str, Any]:
    if not raw.startswith(b"{") or raw.rstrip(b" ")[-1:] != b"}":
        raise _invalid("whitespace", "The header must begin with '{' and end with '}' and spaces.")
    # Before parsing: short values take many times more memory than their text.
    _limit("lists", raw.count(b"["), _LISTS * settings.max_tensors + settings.max_metadata_bytes)
    _limit("values", raw.count(b","), _VALUES * settings.max_tensors + settings.max_metadata_bytes)
    try:
        content = strict_json.read(
            raw.decode("utf-8"), look=_Objects(settings.max_tensors + 2), fractions=False
        )
    except strict_json.DoubledNameError as error:
        raise NoDecisionError(
            ErrorReason.DUPLICATE_NAME,
            f"The header names {error.name[:80]!r} twice.",
            remedy="Save the adapter again with a current library.",
            metadata={"name": error.name[:200]},
        ) from error
    except strict_json.NoNumberError as error:
        message = f"The header is not valid JSON: {error.text[:40]} is no size."
        raise _invalid("json", message) from error
    except (ValueError, RecursionError) as error:
        raise _invalid("json", f"The header is not valid JSON: {str(error)[:200]}.") from error
    if not isinstance(content, dict):
        raise _invalid("json", "The header is not a JSON object.")
    return content


class _Objects:
    """Counts the objects of a header, of which there are one per tensor and two more."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0

    def __call__(self, pairs: strict_json.Pairs) -> None:
        self._count += 1
        _limit("tensors", self._count, self._most)
        for name, value in pairs:
            name.encode()  # a lone surrogate, written as an escape, fails here
            if isinstance(value, str):
                value.encode()


def _metadata(value: Any, settings: IntakeSection) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _invalid("metadata", "The header's __metadata__ must map strings to strings.")
    size = sum(len(name) + len(text) for name, text in value.items())
    _limit("metadata_bytes", size, settings.max_metadata_bytes)
    return value


def _entry(name: str, value: Any, settings: IntakeSection) -> TensorEntry:
    _limit("name_length", len(name), settings.max_name_length)
    if not name or not name.isprintable():
        raise _invalid("name", "A tensor's name is empty or has control characters.", name)
    if not isinstance(value, dict) or set(value) != _FIELDS:
        raise _invalid(
            "unknown_field", "A tensor must have exactly dtype, shape and data_offsets.", name
        )
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not _naturals(shape) or len(shape) > MAX_RANK:
        raise _invalid("shape", "A tensor's shape is not a short list of sizes.", name)
    if not _naturals(offsets) or len(offsets) != 2:
        raise _invalid("offsets", "A tensor's data_offsets are not two sizes.", name)
    begin, end = offsets
    size = math.prod(shape) * _item_bytes(name, dtype, shape)
    if size == 0:
        raise _invalid("empty_tensor", "A tensor has no values.", name)
    if end - begin != size:
        raise _offsets(f"Tensor {name!r} needs {size} bytes but has {end - begin}.", name)
    return TensorEntry(name, dtype, tuple(shape), begin, end)


_KINDS_WITH_INTEGERS = {
    ".reshape_weight": "a layer of another size",
    ".bias_indices": "sparse biases",
    ".bias_size": "sparse biases",
}


def _item_bytes(name: str, dtype: Any, shape: list[int]) -> int:
    """Bytes of one value; integers count for a single alpha only."""
    types: Mapping[str, int] = ITEM_BYTES
    if is_alpha_name(name) and math.prod(shape) == 1:
        types = ITEM_BYTES | INTEGER_BYTES
    kind = next((told for end, told in _KINDS_WITH_INTEGERS.items() if name.endswith(end)), None)
    if kind is not None and dtype in INTEGER_BYTES:
        raise NoDecisionError(
            ErrorReason.DTYPE_UNSUPPORTED,
            f"Tensor {name!r} tells that the adapter holds {kind}; this kind is not read.",
            remedy="Make the adapter again as a plain LoRA, without these.",
            metadata={"tensor": name, "dtype": str(dtype)[:20]},
        )
    if not isinstance(dtype, str) or dtype not in types:
        raise NoDecisionError(
            ErrorReason.DTYPE_UNSUPPORTED,
            f"Tensor {name!r} has type {str(dtype)[:20]!r}; adapter weights are floating-point.",
            remedy=f"Save the adapter as one of {', '.join(ITEM_BYTES)}.",
            metadata={"tensor": name, "dtype": str(dtype)[:20]},
        )
    return types[dtype]


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 2**48 for item in value
    )


def _check_offsets(entries: list[TensorEntry], data_bytes: int, start: int) -> None:
    expected, before = 0, ""
    for entry in entries:
        if entry.begin != expected:
            kind = "overlaps" if entry.begin < expected else "leaves a hole after"
            raise _offsets(f"Tensor {entry.name!r} {kind} {before!r}.", entry.name, before)
        expected, before = entry.end, entry.name
    if expected > data_bytes:
        raise _truncated(start + expected, start + data_bytes)
    if expected < data_bytes:
        raise _offsets(f"{data_bytes - expected} bytes at the end belong to no tensor.", before)


def _limit(name: str, actual: int, allowed: int) -> None:
    if actual > allowed:
        raise NoDecisionError(
            ErrorReason.HEADER_LIMIT_EXCEEDED,
            f"The header's {name.replace('_', ' ')} is {actual}; {allowed} is the limit.",
            remedy="Check that this is an adapter; raise the limit in the configuration if it is.",
            metadata={"limit": name, "allowed": str(allowed), "actual": str(actual)},
        )


def _truncated(expected: int, actual: int) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.FILE_TRUNCATED,
        f"The file has {actual} bytes; its header promises {expected}.",
        remedy="Download or copy the file again.",
        metadata={"expected_bytes": str(expected), "actual_bytes": str(actual)},
    )


def _invalid(rule: str, message: str, tensor: str = "") -> NoDecisionError:
    facts = {"rule": rule} | ({"tensor": tensor[:200]} if tensor else {})
    where = f" Tensor: {tensor[:80]!r}." if tensor else ""
    return NoDecisionError(
        ErrorReason.HEADER_INVALID,
        message + where,
        remedy="Save the adapter again with a current safetensors library.",
        metadata=facts,
    )


def _offsets(message: str, tensor: str, other: str = "") -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.OFFSETS_INVALID,
        message,
        remedy="Save the adapter again with a current safetensors library.",
        metadata={"tensor": tensor[:200], "other": other[:200]},
    )
