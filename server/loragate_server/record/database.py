"""`Database`: recorded decisions, to be found again by id, adapter or verdict."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, func, insert, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.review import subject_of
from loragate_server.record.connect import WRITES, make_engine, parse_url, sqlite_path
from loragate_server.record.failures import database_failure
from loragate_server.record.finding_rows import insert_findings
from loragate_server.record.known_rows import insert_known
from loragate_server.record.outbox.announcer import Announcer, Silent
from loragate_server.record.paging import Place
from loragate_server.record.search import Search, conditions, storable
from loragate_server.record.sketch_rows import insert_sketches
from loragate_server.record.tables import audited_adapters, audits, pruned
from loragate_server.record.verdict import Verdict
from loragate_server.record.weights_rows import insert_weights

_ROWS = select(audits.c.payload, audits.c.envelope)
MINIMUM_FREE_BYTES = 64 << 10
_TAKE_ROOM = (
    "CREATE TEMPORARY TABLE room ON COMMIT DROP AS"
    " SELECT repeat(md5(number::text), 30) AS text FROM generate_series(1, 200) AS number"
)
"""Rows that are too short to be compressed; the file of the table grows at once."""
_NEWEST_FIRST = (audits.c.decided_at.desc(), audits.c.decision_id.desc())


@dataclass(frozen=True)
class Span:
    """Which decisions of the past to go through.

    Attributes:
        since: timezone-aware; the first moment that belongs to the span. None: from the beginning.
        until: timezone-aware; the first moment that no longer belongs to it. None: to the end.
        service: only decisions that this service asked for; "" for all.
    """

    since: datetime | None = None
    until: datetime | None = None
    service: str = ""


@dataclass(frozen=True)
class Row:
    """A recorded decision: the verdict as JSON of the codec, and its signed form, b"" for none."""

    payload: str
    envelope: bytes = b""


@dataclass(frozen=True)
class Stored:
    """A row: its place in the list of decisions, and the verdict as JSON of the codec."""

    place: Place
    payload: str


class Database:
    """The tables of `tables`, in SQLite or PostgreSQL. Thread-safe.

    Every method raises NoDecisionError, DATABASE_UNAVAILABLE or DISK_FULL, when the database does
    not do its work, and works again as soon as the database does.
    """

    def __init__(
        self, database_url: str, timeout_s: float, announcer: Announcer | None = None
    ) -> None:
        """Connects to nothing yet; the tables have to exist (`migrate.upgrade`).

        Args:
            database_url: of SQLAlchemy.
            timeout_s: longest wait for the database.
            announcer: is told of every decision and review in the transaction that writes it.
        """
        url = parse_url(database_url)
        self.announcer = announcer or Silent()
        self._timeout_s = timeout_s
        self._engine = make_engine(url, timeout_s)
        self._path = sqlite_path(url)
        self._file = _identity(self._path)
        self._writer = threading.Lock()
        self._found_full = False

    def insert(self, verdict: Verdict, payload: str, before_commit: Callable[[], None]) -> None:
        """Stores a verdict; it is visible and durable when this returns, and not at all otherwise.

        Args:
            verdict: what to store; its fields fill the columns that are searched.
            payload: the verdict as JSON of the codec.
            before_commit: called when nothing but the commit is left to do; what it raises undoes
                the insertion.
        """
        with self.writing() as connection:
            connection.execute(insert(audits).values(**_row(verdict, payload)))
            rows = _adapter_rows(verdict)
            if rows:
                connection.execute(insert(audited_adapters), rows)
            insert_findings(connection, verdict)
            insert_known(connection, verdict)
            insert_sketches(connection, verdict)
            insert_weights(connection, verdict)
            self.announcer.decided(connection, verdict)
            before_commit()

    def get(self, decision_id: str) -> Row | None:
        """A decision, or None."""
        query = _ROWS.where(audits.c.decision_id == storable(decision_id))
        with self._connected() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None else Row(found.payload, found.envelope or b"")

    def page(self, size: int, after: Place | None, search: Search) -> list[Row]:
        """At most `size` decisions, newest first, that come after a place."""
        query = _ROWS.where(*conditions(search), *_after(after))
        query = query.order_by(*_NEWEST_FIRST).limit(size)
        with self._connected() as connection:
            return [Row(row.payload, row.envelope or b"") for row in connection.execute(query)]

    def count_found(self, search: Search, most: int) -> int:
        """How many decisions `page` would give in all, counted up to `most`."""
        some = select(audits.c.decision_id).where(*conditions(search)).limit(most).subquery()
        with self._connected() as connection:
            return int(connection.execute(select(func.count()).select_from(some)).scalar_one())

    def history(self, size: int, after: Place | None, span: Span) -> list[Stored]:
        """At most `size` binding decisions of a span that have their evidence, newest first."""
        columns = (audits.c.decided_at, audits.c.decision_id, audits.c.payload)
        query = select(*columns).where(*_within(span), *_after(after))
        query = query.order_by(*_NEWEST_FIRST).limit(size)
        with self._connected() as connection:
            return [Stored(Place(*row[:2]), row.payload) for row in connection.execute(query)]

    def count(self, span: Span) -> int:
        """How many decisions `history` goes through."""
        query = select(func.count()).select_from(audits).where(*_within(span))
        with self._connected() as connection:
            return int(connection.execute(query).scalar_one())

    def count_pruned(self, span: Span) -> int:
        """How many binding decisions of a span `history` leaves out, for their evidence is gone."""
        gone = [audits.c.binding.is_(True), audits.c.evidence_pruned_at.is_not(None)]
        query = select(func.count()).select_from(audits).where(*gone, *_of_span(span))
        with self._connected() as connection:
            return int(connection.execute(query).scalar_one())

    def pruned(self, decision_id: str) -> tuple[datetime, str] | None:
        """When a decision was pruned, and where it is archived ("" for nowhere); None if never."""
        columns = (pruned.c.pruned_at, pruned.c.archive)
        query = select(*columns).where(pruned.c.id == storable(decision_id))
        with self._connected() as connection:
            found = connection.execute(query).one_or_none()
        return None if found is None else (found.pruned_at, found.archive)

    def check(self) -> None:
        """Finds out whether the next decision could be written: tables, rights and room.

        The disk of a PostgreSQL server is not seen from here. Once a write found no room there, a
        temporary table tells whether there is any again.
        """
        if self._path is None:
            with self._connected(writes=self._found_full) as connection:
                connection.execute(select(audits.c.decision_id).limit(1)).all()
                if self._found_full:
                    connection.exec_driver_sql(_TAKE_ROOM)
            self._found_full = False
            return
        with self._one_writer(), self._connected(writes=True) as connection:
            connection.execute(select(audits.c.decision_id).limit(1)).all()
            room = os.statvfs(self._path)
            if room.f_bavail * room.f_frsize < MINIMUM_FREE_BYTES:
                raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, and undone by whatever is raised inside."""
        with self._one_writer(), self._connected(writes=True) as connection:
            yield connection
            self._check_still_there()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self._connected() as connection:
            yield connection

    @contextlib.contextmanager
    def _connected(self, *, writes: bool = False) -> Iterator[Connection]:
        """A connection in a transaction that is committed at the end."""
        try:
            self._follow_file()
            connection = self._engine.connect().execution_options(**(WRITES if writes else {}))
            with connection, connection.begin():
                yield connection
            self._check_still_there()
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            failure = database_failure(error)
            self._found_full |= failure.reason is ErrorReason.DISK_FULL
            raise failure from error

    @contextlib.contextmanager
    def _one_writer(self) -> Iterator[None]:
        """SQLite has one writer at a time; waiting here is fairer than its polling."""
        if self._path is None:
            yield
            return
        if not self._writer.acquire(timeout=self._timeout_s):
            raise database_failure(TimeoutError("another write takes too long"))
        try:
            yield
        finally:
            self._writer.release()

    def _follow_file(self) -> None:
        """Drops connections to an SQLite file that was removed or replaced.

        They would go on working, on a file that nobody can find again.
        """
        if self._path is None:
            return
        now = _identity(self._path)
        if now != self._file:
            self._engine.dispose()
            self._file = now
        if now is None:
            raise FileNotFoundError(
                f"{self._path} does not exist; name the server's --config or --state-dir"
            )

    def _check_still_there(self) -> None:
        if self._path is not None and _identity(self._path) != self._file:
            raise FileNotFoundError(f"{self._path.name} was removed or replaced")


def decision_pruned(decision_id: str, at: datetime, archive: str) -> NoDecisionError:
    """The error for an id that names a decision which is there no more."""
    where = f"It lies in {archive}." if archive else "It was not archived; the log may have it."
    return NoDecisionError(
        ErrorReason.DECISION_UNKNOWN,
        f"The decision {decision_id} was pruned on {at:%Y-%m-%d}.",
        remedy=where,
        metadata={"decision_id": decision_id},
    )


def decision_unknown(decision_id: str) -> NoDecisionError:
    """The error for an id that names no decision."""
    return NoDecisionError(
        ErrorReason.DECISION_UNKNOWN,
        f"No decision {decision_id[:64]!r} is recorded.",
        remedy="Use an id from Verdict.decision_id; `loragate list` shows the recorded ones.",
        metadata={"decision_id": decision_id[:64]},
    )


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Device and inode of a file; None if there is none."""
    if path is None:
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _after(place: Place | None) -> list[ColumnElement[bool]]:
    """What comes after a place in the order of `_NEWEST_FIRST`."""
    if place is None:
        return []
    key = tuple_(audits.c.decided_at, audits.c.decision_id)
    return [key < tuple_(place.decided_at, place.decision_id)]


def _within(span: Span) -> list[ColumnElement[bool]]:
    return [
        audits.c.binding.is_(True),
        audits.c.evidence_pruned_at.is_(None),  # nothing is left to decide again
        *_of_span(span),
    ]


def _of_span(span: Span) -> list[ColumnElement[bool]]:
    return conditions(Search(since=span.since, until=span.until, service=span.service))


def _row(verdict: Verdict, payload: str) -> dict[str, object]:
    decision = verdict.decision
    return {
        "decision_id": verdict.decision_id,
        "decided_at": verdict.decided_at,
        "expires_at": verdict.expires_at,
        "verdict": decision.verdict.value,
        "would_be_verdict": decision.would_be_verdict.value,
        "mode": decision.mode.value,
        "remedy": decision.remedy.value,
        "dry_run": verdict.dry_run,
        "binding": verdict.binding,
        "base_model": storable(decision.evidence.base_model),
        "base_digest": storable(decision.evidence.base_digest),
        "library_digest": storable(decision.evidence.library_digest),
        "policy_digest": decision.policy_digest,
        "engine_version": decision.evidence.engine_version,
        "caller_service": storable(verdict.caller.service),
        "caller_tenant": storable(verdict.caller.tenant),
        "caller_request_id": storable(verdict.caller.request_id),
        "caller_identity": storable(verdict.caller.identity),
        "payload": payload,
        "subject_key": _subject_key(verdict),
        "envelope": verdict.envelope or None,
    }


def _subject_key(verdict: Verdict) -> str | None:
    subject = subject_of(verdict.decision) if verdict.binding else None
    return None if subject is None else subject.key


def _adapter_rows(verdict: Verdict) -> list[dict[str, object]]:
    return [
        {
            "decision_id": verdict.decision_id,
            "position": position,
            "sha256": adapter.sha256,
            "size_bytes": adapter.size_bytes,
            "format": storable(adapter.format),
            "denoiser_strength": float(adapter.denoiser_strength),
            "text_encoder_strength": float(adapter.text_encoder_strength),
        }
        for position, adapter in enumerate(verdict.decision.evidence.adapters)
    ]
