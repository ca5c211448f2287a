"""Adapter files that are looked at where they lie: checked as any other, and put into no store."""

from __future__ import annotations

import hashlib
import io
import time
from dataclasses import dataclass
from pathlib import Path

from loragate_server.adapter.reference import AdapterReference, StoredFile
from loragate_server.config.intake import IntakeSection
from loragate_server.intake.content import HEAD_BYTES, refuse_by_content
from loragate_server.intake.fetch import read_chunk, require_expected, too_large
from loragate_server.intake.header import read_header
from loragate_server.intake.sources import open_source
from loragate_server.intake.weights import read_weights
from loragate_server.progress import Leash

NOWHERE = Path("not-stored")
"""Stands for the place of a file that is in no store."""


@dataclass(frozen=True)
class Unstored:
    """A checked file and its bytes."""

    file: StoredFile
    data: bytes


def read_unstored(ref: AdapterReference, settings: IntakeSection, leash: Leash) -> Unstored:
    """Reads a reference's bytes once and checks them as `Intake.fetch` does.

    For whoever reads a hundred thousand files that stay where they are: a store would hold them a
    second time, and lose those of live requests to them.

    Raises:
        NoDecisionError: every reason that concerns sources and files, CANCELLED and
            DEADLINE_EXCEEDED.
    """
    with open_source(ref, settings) as source:
        if source.size_bytes is not None and source.size_bytes > settings.max_file_bytes:
            raise too_large(source.size_bytes, settings)
        read = io.BytesIO()  # which hands its bytes on without a copy
        until_s = time.monotonic() + settings.fetch_total_s
        while chunk := read_chunk(source, ref):
            leash.check()
            if ref.uri is not None and time.monotonic() > until_s:
                raise TimeoutError  # which `open_source` says as of every other cause
            before = read.tell()
            read.write(chunk)
            if before < HEAD_BYTES <= read.tell():
                refuse_by_content(bytes(read.getbuffer()[:HEAD_BYTES]))
            if read.tell() > settings.max_file_bytes:
                raise too_large(read.tell(), settings)
        data, config_json = read.getvalue(), source.config_json
    refuse_by_content(data[:HEAD_BYTES])
    sha256 = hashlib.sha256(data).hexdigest()
    require_expected(sha256, ref.expected_sha256)
    checked = io.BytesIO(data)
    header = read_header(checked, len(data), settings)
    weights_sha256 = read_weights(checked, header)
    return Unstored(StoredFile(sha256, len(data), NOWHERE, config_json, weights_sha256), data)
