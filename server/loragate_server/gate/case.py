"""`Case`: a question whose bytes lie in the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from loragate_server.adapter.reference import StoredFile
from loragate_server.gate.key import AdapterKey
from loragate_server.gate.request import GateRequest


@dataclass(frozen=True)
class Case:
    """A question whose bytes lie in the store.

    Attributes:
        files: one per adapter of the request, in order.
        uploaded: whether the bytes came as an upload.
        inline_bytes: bytes that came with the request.
        intake_s: seconds that intake took; of an upload, without the waits for its sender.
    """

    request: GateRequest
    files: Sequence[StoredFile]
    intake_s: float
    uploaded: bool = False
    inline_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def restricted_to(self) -> tuple[str, ...]:
        """Sorted ids of the concepts that are asked about; empty for the whole library."""
        return tuple(sorted(set(self.request.concept_ids)))

    @property
    def is_plain(self) -> bool:
        """Whether it is about one adapter at one strength, as most are."""
        return len(self.files) == 1 and len(self.request.adapters[0].strengths) == 1

    @cached_property
    def adapter_keys(self) -> tuple[AdapterKey, ...]:
        """One key per adapter, in order."""
        return tuple(
            AdapterKey(file.sha256, file.config_sha256, one.strengths, one.optional, one.kind)
            for file, one in zip(self.files, self.request.adapters, strict=True)
        )
