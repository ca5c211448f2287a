"""What a crash left between the two writings: in the log, and not in the database.

A line is written before its row is committed, and only then is anybody answered. A process that is
killed in between leaves a line that nobody was answered with. At the next start a note says so,
and `log reconcile` takes it at its word. What blocks is put into the database instead: whether
somebody was answered cannot be told from a database that lost its last moments (a backup, another
PostgreSQL server that took over), and a block that nobody heard of does no harm. A database that
lacks more than a crash can leave is told of and nothing is noted. A step of a change of the concept
library that is in the log alone is taken back as one that failed.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from loragate_server.errors import NoDecisionError
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.chain import parse_line
from loragate_server.record.changes.change import CHANGE_NOTE, CHANGE_VOID
from loragate_server.record.database import Database
from loragate_server.record.log import DecisionLog
from loragate_server.record.put_back import put_back
from loragate_server.record.reviews.review import ReviewState
from loragate_server.record.rotation import files_of
from loragate_server.record.tables import audits, concept_changes, pruned, reviews

UNFINISHED = "unfinished_at_start"

_TAIL_BYTES = 4 << 20
_AT_MOST = 64
"""More than can be written at once: each needs a connection to the database."""
_CRASH = timedelta(seconds=30)
"""All that a crash interrupts was written within so long: longer waits end in an error."""

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Line:
    id: str
    written_at: datetime
    entry: dict[str, Any]
    blocks: bool


def note_unfinished(database: Database, log: DecisionLog, path: Path) -> tuple[str, ...]:
    """Notes what the last process could not finish, or puts it back; returns the ids.

    Args:
        database: where the rows should be.
        log: open, so that nobody else writes it.
        path: of the log.

    Raises:
        NoDecisionError: log or database do not do their work.
        OSError: the log cannot be read.
    """
    entries = list(_last_entries(path))
    _void_steps(database, log, entries)
    lines = _last_lines(entries)
    if not lines:
        return ()
    there = _rows(database, [one.id for one in lines])
    missing = [one for one in lines if one.id not in there]
    if not missing:
        return ()
    oldest, last = min(one.written_at for one in missing), max(one.written_at for one in lines)
    if len(missing) == len(lines) > 1 or last - oldest > _CRASH:
        _LOGGER.error(
            "The database lacks at least %d of the last decisions of the log; "
            "`loragate-server log reconcile` names them.",
            len(missing),
        )
        return ()
    for one in missing:
        if one.blocks and _put_back(database, one):
            continue
        log.append_note({"code": UNFINISHED, "id": one.id})
    _LOGGER.warning("%d decisions were being written when the last process ended.", len(missing))
    return tuple(one.id for one in missing)


def _void_steps(database: Database, log: DecisionLog, entries: Sequence[dict[str, Any]]) -> None:
    """Takes back the steps of changes of the library that a crash kept from the database.

    Where it lacks older ones as well, it has lost more than that, and nothing is noted.
    """
    steps: dict[tuple[str, int], datetime] = {}
    last = datetime.min.replace(tzinfo=UTC)
    for entry in entries:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            code = entry["note"].get("code") if entry["kind"] == "note" else ""
            if code == CHANGE_VOID:
                steps.pop((entry["note"]["change_id"], entry["note"]["position"]), None)
                continue
            if code not in ("", CHANGE_NOTE):
                continue
            last = max(last, datetime.fromisoformat(entry["time"]))
            if code == CHANGE_NOTE:
                event = entry["note"]["change"]["event"]
                steps[event["change_id"], event["position"]] = last
    missing = steps.keys() - _steps(database, [name for name, _ in steps])
    if len(missing) == len(steps) > 1 or any(last - steps[one] > _CRASH for one in missing):
        _LOGGER.error("The database lacks changes of the library that the log has.")
        return
    for name, position in sorted(missing):
        void = {"code": CHANGE_VOID, "change_id": name, "position": position}
        log.append_note({**void, "cause": UNFINISHED})


def _steps(database: Database, change_ids: Sequence[str]) -> set[tuple[str, int]]:
    if not change_ids:
        return set()
    columns = (concept_changes.c.change_id, concept_changes.c.position)
    query = select(*columns).where(concept_changes.c.change_id.in_(list(change_ids)))
    with database.reading() as connection:
        return {(name, position) for name, position in connection.execute(query)}


def _put_back(database: Database, line: _Line) -> bool:
    """Whether it is in the database now; it is not where another review has taken its place.

    Raises:
        NoDecisionError: the database does not do its work.
    """
    try:
        put_back(database, line.entry)
    except NoDecisionError as error:
        if isinstance(error.__cause__, IntegrityError):
            return False
        raise
    return True


def _rows(database: Database, ids: list[str]) -> set[str]:
    found: set[str] = set()
    with database.reading() as connection:
        for column in (audits.c.decision_id, reviews.c.review_id, pruned.c.id):
            found |= set(connection.execute(select(column).where(column.in_(ids))).scalars())
    return found


def _last_lines(entries: Iterable[dict[str, Any]]) -> list[_Line]:
    """The last decisions and reviews of the log that no note speaks of already."""
    lines: list[_Line] = []
    noted: set[str] = set()
    for entry in entries:
        if entry["kind"] == "note":
            note = entry["note"]
            noted |= {str(note.get(key)) for key in ("id", "decision_id", "review_id")}
            continue
        with contextlib.suppress(KeyError, TypeError, ValueError):
            name = (
                entry["verdict"]["decision_id"]
                if entry["kind"] == "decision"
                else entry["review"]["event"]["review_id"]
            )
            lines.append(
                _Line(str(name), datetime.fromisoformat(entry["time"]), entry, _blocks(entry))
            )
    return [one for one in lines if one.id not in noted][-_AT_MOST:]


def _blocks(entry: dict[str, Any]) -> bool:
    """Whether a line keeps something from being loaded."""
    if entry["kind"] == "decision":
        return bool(entry["verdict"]["decision"]["would_be_verdict"] == VerdictKind.BLOCK)
    return bool(entry["review"]["state"] == ReviewState.REJECTED)


def _last_entries(path: Path) -> Iterable[dict[str, Any]]:
    """What the ends of the last two files hold, oldest first."""
    for file in files_of(path)[-2:]:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            opened.seek(max(0, size - _TAIL_BYTES))
            if size > _TAIL_BYTES:
                opened.readline()  # the end of a line
            for line in opened:
                with contextlib.suppress(ValueError):
                    yield parse_line(line.removesuffix(b"\n"))
