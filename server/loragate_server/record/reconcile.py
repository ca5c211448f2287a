"""Compares the decision log with the database, in both directions.

A decision that was answered stands in both. In the log alone may stand what a note calls not
answered, what was pruned from the database, and, for a moment, what is being written now. In the
database alone may stand what was written to a log of another replica, which has to be given too.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, select

from loragate_server.record.chain import parse_line
from loragate_server.record.codec import to_json
from loragate_server.record.database import Database
from loragate_server.record.tables import audits, reviews
from loragate_server.record.tables import pruned as pruned_rows
from loragate_server.record.unfinished import UNFINISHED

SETTLE_S = 1.0
"""How long a decision that is being written may be in the log before it is in the database."""

Kind = Literal["decision", "review"]
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
_VOID = {"not_answered": "decision_id", "review_void": "review_id", UNFINISHED: "id"}
"""Codes of notes about what was logged and is in force nowhere, and where the id stands."""


@dataclass(frozen=True)
class Entry:
    """What a line or a row says: digest of the whole, and the verdict or the act alone."""

    sha256: str
    gist: str


@dataclass
class Logged:
    """What some logs hold, by kind and id.

    Attributes:
        void: ids of what is in force nowhere.
        pruned_until: up to when lines may be missing, because files were pruned.
        read: how much of each file has been read, by its device and inode.
    """

    entries: dict[tuple[Kind, str], Entry] = field(default_factory=dict)
    void: set[str] = field(default_factory=set)
    pruned_until: datetime = _BEGINNING
    read: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """Something that is not the same on both sides.

    Attributes:
        where: "log" and "database" for what stands there alone; "both" for what differs.
    """

    kind: Kind
    id: str
    where: Literal["log", "database", "both"]


@dataclass(frozen=True)
class Reconciled:
    """What a comparison found.

    Attributes:
        equal: decisions and reviews that are the same on both sides.
        thinned: decisions whose measured numbers were pruned from the database; their verdicts
            are the same on both sides.
        not_answered: in the log alone, and a note there says why.
        pruned: on one side alone, because retention took the other one away.
        differences: sorted by id, which is by time.
    """

    equal: int
    thinned: int
    not_answered: int
    pruned: int
    differences: tuple[Difference, ...]


def reconcile(
    database: Database,
    logs: Sequence[Path],
    settle: Callable[[], None] = lambda: time.sleep(SETTLE_S),
) -> Reconciled:
    """Compares; servers may write meanwhile.

    Args:
        database: of all replicas whose logs are given.
        logs: every file of the log of every replica, in any order.
        settle: waits until what was being written is written; called once, if at all.

    Raises:
        OSError: a log cannot be read.
        ValueError: a line of a log cannot be read; the message names file and line.
        NoDecisionError: DATABASE_UNAVAILABLE.
    """
    found = Logged()
    _read_on(found, logs)
    before = frozenset(found.entries)
    stored, pruned = _stored(database)
    if any(key not in stored and key[1] not in pruned for key in before):
        settle()
        stored, pruned = _stored(database)
    # A row is committed after its line, so what the database had by now is in the log by now.
    _read_on(found, logs)
    return _compared(before, found, stored, pruned)


def _read_on(found: Logged, paths: Iterable[Path]) -> None:
    """Takes in what the logs say that was not read before."""
    for path in paths:
        for number, line in _new_lines(path, found.read):
            try:
                _take(found, parse_line(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}:{number} is no line of a decision log") from error


def entry_of(kind: Kind, payload: dict[str, Any]) -> Entry:
    """What is compared of a payload as the codec writes it."""
    if kind == "review":
        gist = [payload["event"]["action"], payload["state"]]
    else:
        decision = payload["decision"]
        files = [one["sha256"] for one in decision["evidence"]["adapters"]]
        gist = [decision["verdict"], decision["would_be_verdict"], decision["mode"], files]
    return Entry(hashlib.sha256(to_json(payload).encode()).hexdigest(), to_json(gist))


def _take(found: Logged, line: dict[str, Any]) -> None:
    if line["kind"] == "decision":
        payload = line["verdict"]
        found.entries["decision", payload["decision_id"]] = entry_of("decision", payload)
    elif line["kind"] == "review":
        payload = line["review"]
        found.entries["review", payload["event"]["review_id"]] = entry_of("review", payload)
    else:
        note = line["note"]
        if note["code"] in _VOID:
            found.void.add(note[_VOID[note["code"]]])
        elif note["code"] == "log_file_pruned":
            found.pruned_until = max(found.pruned_until, datetime.fromisoformat(note["newest"]))


def _new_lines(path: Path, read: dict[tuple[int, int], int]) -> Iterator[tuple[int, bytes]]:
    """Lines after those that were read, each with its number among them.

    One that is being written now is left for the next time.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        key = (status.st_dev, status.st_ino)
        file.seek(read.get(key, 0))
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            read[key] = read.get(key, 0) + len(line)
            yield number, line[:-1]


@dataclass(frozen=True)
class _Row:
    sha256: str
    gist: str
    thinned: bool
    at: datetime


def _stored(database: Database) -> tuple[dict[tuple[Kind, str], _Row], frozenset[str]]:
    """What the database holds, and the ids of the decisions that were pruned from it."""
    with database.reading() as connection:
        rows = {**_decisions(connection), **_reviews(connection)}
        gone = connection.execute(select(pruned_rows.c.id)).scalars()
        return rows, frozenset(gone)


def _decisions(connection: Connection) -> dict[tuple[Kind, str], _Row]:
    columns = audits.c
    query = select(
        columns.decision_id, columns.payload, columns.evidence_pruned_at, columns.decided_at
    )
    found: dict[tuple[Kind, str], _Row] = {}
    for decision_id, payload, thinned_at, at in connection.execute(query):
        entry = _entry_of_text("decision", payload)
        row = _Row(entry.sha256, entry.gist, thinned_at is not None, at)
        found["decision", decision_id] = row
    return found


def _reviews(connection: Connection) -> dict[tuple[Kind, str], _Row]:
    found: dict[tuple[Kind, str], _Row] = {}
    query = select(reviews.c.review_id, reviews.c.payload, reviews.c.reviewed_at)
    for review_id, payload, at in connection.execute(query):
        entry = _entry_of_text("review", payload)
        found["review", review_id] = _Row(entry.sha256, entry.gist, False, at)
    return found


def _entry_of_text(kind: Kind, text: str) -> Entry:
    """As `entry_of`; what cannot be read is like nothing that was ever logged."""
    try:
        return entry_of(kind, json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError):
        return Entry("", "")


def _compared(
    before: frozenset[tuple[Kind, str]],
    after: Logged,
    stored: dict[tuple[Kind, str], _Row],
    pruned: frozenset[str],
) -> Reconciled:
    differences: list[Difference] = []
    equal = thinned = not_answered = gone = 0
    for (kind, name), row in stored.items():
        line = after.entries.get((kind, name))
        if line is None and row.at <= after.pruned_until:
            gone += 1
        elif line is None:
            differences.append(Difference(kind, name, "database"))
        elif row.sha256 == line.sha256:
            equal += 1
        elif row.thinned and row.gist == line.gist:
            thinned += 1
        else:
            differences.append(Difference(kind, name, "both"))
    for kind, name in before - stored.keys():
        if name in after.void:
            not_answered += 1
        elif name in pruned:
            gone += 1
        else:
            differences.append(Difference(kind, name, "log"))
    ordered = tuple(sorted(differences, key=lambda one: one.id))
    return Reconciled(equal, thinned, not_answered, gone, ordered)
