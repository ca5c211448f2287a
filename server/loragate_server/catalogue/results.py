"""Results of a scan as Parquet partitions: what was decided, what was refused, and why.

A part is written under another name and moved into its place, so that one that is there is whole.
Where a place is named twice the later part counts: it was scanned again. The record is the
authority; what was decided and did not get into a part is found there again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from loragate_server.files import lock

PART_ROWS = 1000
FORMAT = "1"

SCHEMA = pa.schema(
    [
        ("location", pa.string()),
        ("version", pa.string()),
        ("name", pa.string()),
        ("metadata", pa.string()),
        ("sha256", pa.string()),
        ("config_sha256", pa.string()),
        ("size_bytes", pa.int64()),
        ("outcome", pa.string()),
        ("decision_id", pa.string()),
        ("decided_at", pa.timestamp("us", tz="UTC")),
        ("expires_at", pa.timestamp("us", tz="UTC")),
        ("verdict", pa.string()),
        ("would_be_verdict", pa.string()),
        ("mode", pa.string()),
        ("remedy", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("concept_id", pa.string()),
        ("concept_name", pa.string()),
        ("severity", pa.string()),
        ("score", pa.float64()),
        ("p_value", pa.float64()),
        ("degree", pa.float64()),
        ("stage", pa.string()),
        ("parents", pa.list_(pa.string())),
        ("stage_times_s", pa.map_(pa.string(), pa.float64())),
        ("reason", pa.string()),
        ("message", pa.string()),
    ],
    metadata={"loragate_catalogue": FORMAT},
)
"""One row for each place. `outcome` is decided, same (as another place's bytes) or refused; then
`reason` and `message` say why. The concept is the gravest one; `parents` are digests of blocked
files that the file is made of."""


class Results:
    """The parts in a folder. Belongs to one thread; one job at a time writes there.

    Args:
        folder: made where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".part-*"):
            left_over.unlink(missing_ok=True)
        self._rows: list[Mapping[str, Any]] = []
        self._next = 1 + max((_number(path) for path in self.parts), default=0)

    @property
    def parts(self) -> list[Path]:
        """The files, oldest first."""
        return parts_in(self._folder)

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes a row in; it is on disk when the part is full, or after `flush`."""
        self._rows.append(row)
        if len(self._rows) >= PART_ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes what is left as a part."""
        if not self._rows:
            return
        table = pa.Table.from_pylist(list(self._rows), SCHEMA)
        partial = self._folder / f".part-{self._next:06d}"
        with partial.open("wb") as file:
            parquet.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._folder / f"part-{self._next:06d}.parquet")
        self._next += 1
        self._rows.clear()


@contextmanager
def held(folder: Path) -> Iterator[bool]:
    """Keeps other scans, with whatever state directory, from writing into a folder of results.

    Yields:
        Whether nobody else is there.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            lock(file)
        except BlockingIOError:
            yield False
            return
        yield True


def parts_in(folder: Path) -> list[Path]:
    """The parts of a folder, oldest first."""
    return sorted(folder.glob("part-*.parquet"), key=_number)


def read_parts(folder: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """What the parts hold, oldest first; no more than some thousand rows in memory.

    Raises:
        OSError: a part cannot be read.
        pyarrow.ArrowException: a file of that name is none.
    """
    for path in parts_in(folder):
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=4096, columns=columns)


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("part-")
    return int(digits) if digits.isdecimal() else 0
