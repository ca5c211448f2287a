"""Rows between the stages, as tables that Ray hands from process to process; and the first stage.

Nothing here loads torch: a process that only reads files is small, and at work in a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loragate_server.catalogue.reading import read_rows

HANDED_ON_BYTES = 64 << 20
"""Files go to an auditor a batch at a time, or as soon as they are so large together."""

_ENTRY = {
    "location": "string",
    "version": "string",
    "expected_sha256": "string",
    "name": "string",
    "metadata": "string",
    "fault": "string",
    "key": "string",
    "sha256": "string",
    "config_json": "string",
    "weights_sha256": "string",
    "size_bytes": "int64",
    "reason": "string",
    "message": "string",
    "remedy": "string",
}


def read_table(table: Any, intake_json: str) -> Iterator[Any]:
    """Reads files, and hands large ones on a few at a time: no process holds a batch of them.

    Args:
        table: rows of `Entry`.
        intake_json: the section `intake`.
    """
    import pyarrow as pa

    schema = _schema({**_ENTRY, "data": "large_binary", "intake_s": "float64"})
    held: list[dict[str, Any]] = []
    for row in read_rows(table.to_pylist(), intake_json):
        held.append(row)
        if sum(len(each["data"]) for each in held) >= HANDED_ON_BYTES:
            yield pa.Table.from_pylist(held, schema)
            held = []
    if held:
        yield pa.Table.from_pylist(held, schema)


def audited_rows() -> Any:
    """The schema of what an auditor gives."""
    return _schema({**_ENTRY, "same": "bool", "measured": "large_binary"})


def _schema(fields: Mapping[str, str]) -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in fields.items()])
