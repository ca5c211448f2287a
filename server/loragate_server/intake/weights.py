"""One pass over the weights of a file, without torch: NaN and infinity, and the weights' digest."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from loragate_server.adapter.reference import StoredFile
from loragate_server.config.intake import IntakeSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.header import Header, TensorEntry, read_header
from loragate_server.intake.store import read_stored
from loragate_server.recent import REMEMBERED, RecentFiles

_CHUNK_BYTES = 4 * 2**20
_EXPONENT: dict[str, tuple[np.dtype[Any], int]] = {
    "F64": (np.dtype("<u8"), 0x7FF0000000000000),
    "F32": (np.dtype("<u4"), 0x7F800000),
    "F16": (np.dtype("<u2"), 0x7C00),
    "BF16": (np.dtype("<u2"), 0x7F80),
    "F8_E5M2": (np.dtype("u1"), 0x7C),
    "F8_E4M3": (np.dtype("u1"), 0x7F),
}
"""Per type: an unsigned view, and the bits that NaN and infinity have all set: those of the
exponent, and in F8_E4M3, which has no infinity, those of the fraction, too."""


def read_weights(file: BinaryIO, header: Header) -> str:
    """Reads every tensor once, in order of their bytes, and refuses what is not finite.

    Args:
        file: the open file, any position.
        header: its checked header.

    Returns:
        The digest of the weights, lower-case hexadecimal: sha256 over the tensors in order of
        their names, of each one line of JSON with name, type, shape and the sha256 of its bytes.
        Files that differ in their metadata alone, or in the order of their tensors, share it.

    Raises:
        NoDecisionError: WEIGHTS_NOT_FINITE, naming the first such tensor; FILE_TRUNCATED where
            the file has become shorter than its header promises.
    """
    digests = {}
    for entry in header.tensors:
        digest = hashlib.sha256()
        for chunk in _chunks(file, header, entry):
            digest.update(chunk)
            if not _finite(chunk, entry.dtype):
                raise NoDecisionError(
                    ErrorReason.WEIGHTS_NOT_FINITE,
                    f"Tensor {entry.name!r} holds NaN or infinity.",
                    remedy="Train or export the adapter again; such weights produce no pictures.",
                    metadata={"tensor": entry.name},
                )
        digests[entry.name] = digest.hexdigest()
    whole = hashlib.sha256()
    for entry in sorted(header.tensors, key=lambda one: one.name):
        line = json.dumps([entry.name, entry.dtype, entry.shape, digests[entry.name]])
        whole.update(f"{line}\n".encode())
    return whole.hexdigest()


class KnownWeights:
    """The digests of the weights of files that are in the store. Thread-safe.

    Args:
        settings: the limits of headers.
        remembered: how many are kept; of others the stored file is read once more.
    """

    def __init__(self, settings: IntakeSection, remembered: int = REMEMBERED) -> None:
        self._settings = settings
        self._known = RecentFiles[str](remembered)

    def learn(self, sha256: str, weights_sha256: str) -> None:
        """Takes in what `read_weights` said of the file with this digest."""
        self._known[sha256] = weights_sha256

    def of(self, stored: StoredFile) -> str:
        """The digest of a stored file's weights; reads the file where another process took it in.

        Raises:
            NoDecisionError: as `read_header` and `read_weights`, and ADAPTER_NOT_STORED where the
                file has gone or was changed.
        """
        found = self._known.get(stored.sha256)
        if found is not None:
            self._known[stored.sha256] = found  # used just now
            return found
        file = io.BytesIO(read_stored(stored))
        found = read_weights(file, read_header(file, stored.size_bytes, self._settings))
        self.learn(stored.sha256, found)
        return found


def _chunks(file: BinaryIO, header: Header, entry: TensorEntry) -> Iterator[bytes]:
    """The bytes of a tensor, in pieces of whole values."""
    file.seek(header.data_start + entry.begin)
    left = entry.end - entry.begin
    while left:
        chunk = file.read(min(left, _CHUNK_BYTES))
        # 8 bytes are whole values of every type; the last piece has what is left.
        if not chunk or (len(chunk) < left and len(chunk) % 8):
            raise _cut_short(entry.name)
        left -= len(chunk)
        yield chunk


def _finite(chunk: bytes, dtype: str) -> bool:
    if dtype not in _EXPONENT:
        return True  # an integer always is
    view, exponent = _EXPONENT[dtype]
    mask = view.type(exponent)
    return not bool(((np.frombuffer(chunk, view) & mask) == mask).any())


def _cut_short(name: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.FILE_TRUNCATED,
        f"The file ends within tensor {name!r}.",
        remedy="Download or copy the file again.",
        metadata={"tensor": name},
    )
