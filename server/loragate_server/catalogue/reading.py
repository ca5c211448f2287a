"""The stage that reads and checks: bytes from where they lie, or why they are refused."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from loragate_server.catalogue.entry import Entry, key_of
from loragate_server.catalogue.failure import failure_of, faulty, no_failure
from loragate_server.config.intake import IntakeSection
from loragate_server.intake.unstored import read_unstored
from loragate_server.progress import Leash
from loragate_server.time_limit import watch_from_now_on

Rows = Sequence[dict[str, Any]]


def read(entry: Entry, settings: IntakeSection) -> dict[str, Any]:
    """One file as the next stage takes it. Raises nothing: what is refused says why."""
    row = {
        **entry.row,
        "key": "",
        "sha256": "",
        "config_json": None,
        "weights_sha256": "",
        "size_bytes": 0,
        "data": b"",
        **no_failure(),
    }
    if entry.fault:
        row.update(faulty(entry.fault), intake_s=0.0)
        return row
    began = time.monotonic()
    deadline = began + settings.fetch_total_s
    try:
        found = read_unstored(entry.reference, settings, Leash(deadline))
    except Exception as error:  # one file must not end the job
        row.update(failure_of(error))
    else:
        file = found.file
        row.update(
            key=key_of(file.sha256, file.config_sha256),
            sha256=file.sha256,
            config_json=file.config_json,
            weights_sha256=file.weights_sha256,
            size_bytes=file.size_bytes,
            data=found.data,
        )
    row["intake_s"] = time.monotonic() - began
    return row


def read_rows(rows: Rows, settings_json: str) -> Iterator[dict[str, Any]]:
    """The stage, over some rows, one after the other.

    Args:
        rows: of `Entry`.
        settings_json: the section `intake` as JSON: processes are given text.
    """
    watch_from_now_on()
    settings = IntakeSection.model_validate_json(settings_json)
    yield from (read(Entry.of(row), settings) for row in rows)
