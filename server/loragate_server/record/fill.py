"""Puts back into a database what only the log holds, after a backup of the database was restored.

The log has no signed forms and no sketches of weights: decisions come back without the former, and
copies of adapters that they blocked are recognised again once those are asked about.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from loragate_server.record.chain import parse_line
from loragate_server.record.database import Database
from loragate_server.record.put_back import put_back
from loragate_server.record.reconcile import Difference


def fill(database: Database, logs: Sequence[Path], differences: Iterable[Difference]) -> int:
    """Inserts the decisions and reviews that stand in the log only; returns how many.

    Args:
        database: to which no server writes the same ones meanwhile.
        logs: as they were given to `reconcile`.
        differences: what `reconcile` found.

    Raises:
        OSError: a log cannot be read.
        ValueError: a line cannot be read.
        NoDecisionError: DATABASE_UNAVAILABLE or DISK_FULL; what was inserted before stays.
    """
    wanted = {one.id for one in differences if one.where == "log"}
    done = 0
    for path in logs:
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # a copy may end in a line that was being written
                entry = parse_line(line[:-1])
                if (entry["kind"] == "decision" and entry["verdict"]["decision_id"] in wanted) or (
                    entry["kind"] == "review" and entry["review"]["event"]["review_id"] in wanted
                ):
                    put_back(database, entry)
                    done += 1
    return done
