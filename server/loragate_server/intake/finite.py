"""NaN and infinity in weights, found without torch."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.header import Header

_CHUNK_BYTES = 4 * 2**20
_EXPONENT: dict[str, tuple[np.dtype[Any], int]] = {
    "F64": (np.dtype("<u8"), 0x7FF0000000000000),
    "F32": (np.dtype("<u4"), 0x7F800000),
    "F16": (np.dtype("<u2"), 0x7C00),
    "BF16": (np.dtype("<u2"), 0x7F80),
}
"""Per type: an unsigned view, and the exponent bits that NaN and infinity have all set."""


def refuse_nonfinite(file: BinaryIO, header: Header) -> None:
    """Reads every weight once, in order.

    Args:
        file: the open file, any position.
        header: its checked header.

    Raises:
        NoDecisionError: WEIGHTS_NOT_FINITE, naming the first such tensor; FILE_TRUNCATED where
            the file has become shorter than its header promises.
    """
    for entry in header.tensors:
        if entry.dtype not in _EXPONENT:
            continue  # an integer is always finite
        view, exponent = _EXPONENT[entry.dtype]
        mask = view.type(exponent)
        file.seek(header.data_start + entry.begin)
        left = entry.end - entry.begin
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            if not chunk or len(chunk) % view.itemsize:
                raise _cut_short(entry.name)
            left -= len(chunk)
            if bool(((np.frombuffer(chunk, view) & mask) == mask).any()):
                raise NoDecisionError(
                    ErrorReason.WEIGHTS_NOT_FINITE,
                    f"Tensor {entry.name!r} holds NaN or infinity.",
                    remedy="Train or export the adapter again; such weights produce no pictures.",
                    metadata={"tensor": entry.name},
                )


def _cut_short(name: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.FILE_TRUNCATED,
        f"The file ends within tensor {name!r}.",
        remedy="Download or copy the file again.",
        metadata={"tensor": name},
    )
