"""Why files of a catalogue have no decision, for whoever looks at the end of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loragate_server.catalogue.results import read_parts
from loragate_server.wording.printable import printable

NAMED = 5
"""More are in the results alone."""


def refusals(folder: Path, places: Sequence[str]) -> list[str]:
    """A line about each of the first refused places.

    Args:
        folder: of the results, the later of which count.
        places: every one that is refused.
    """
    named = places[:NAMED]
    why = dict[str, str]()
    for batch in read_parts(folder, ["location", "reason", "message"]):
        for row in batch.to_pylist():
            if row["location"] in named:
                why[row["location"]] = f"{row['reason']}: {row['message']}"
    lines = [printable(f"refused: {place}: {why.get(place, '')}") for place in named]
    if (more := len(places) - len(named)) > 0:
        lines.append(f"... and {more} more refused; the results name each with its reason")
    return lines
