"""What the results of a scan say about each place, kept up as rows are added."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.failure import AGAIN
from loragate_server.catalogue.progress import REFUSED
from loragate_server.catalogue.results import Results, read_parts


@dataclass(frozen=True)
class Known:
    """What results say about a place.

    Attributes:
        version: of the file that they are about.
        reason: why it was refused; "" where it was not.
    """

    version: str
    refused: bool
    reason: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Known:
        """What one row says."""
        refused = row["outcome"] == REFUSED
        return cls(row["version"] or "", refused, (row["reason"] or "") if refused else "")


def known_places(folder: Path) -> dict[str, Known]:
    """Places that have their result.

    Args:
        folder: of the results.

    Raises:
        OSError: a part cannot be read.
    """
    known: dict[str, Known] = {}
    for batch in read_parts(folder, ["location", "version", "outcome", "reason"]):
        for row in batch.to_pylist():
            known[row["location"]] = Known.of(row)
    return known


def failed_places(known: Mapping[str, Known]) -> set[str]:
    """Those that were refused for reasons that may have gone."""
    return {place for place, one in known.items() if one.refused and one.reason in AGAIN}


def remaining(
    entries: Iterator[Entry], known: Mapping[str, Known], again: Collection[str] = ()
) -> Iterator[Entry]:
    """The entries that have no result or have changed since, each place once.

    Args:
        entries: of the source.
        known: results by place.
        again: places that are looked at whatever is known.
    """
    seen = set[str]()
    for entry in entries:
        before = known.get(entry.location)
        done = before is not None and before.version == entry.version
        if (not done or entry.location in again) and entry.location not in seen:
            seen.add(entry.location)
            yield entry


@dataclass(frozen=True)
class Noted:
    """Adds rows to results, and to what is known."""

    results: Results
    known: dict[str, Known]

    def add(self, row: Mapping[str, Any]) -> None:
        """See `Results.add`."""
        self.results.add(row)
        self.known[row["location"]] = Known.of({"reason": "", **row})
