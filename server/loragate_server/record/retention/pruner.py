"""`Pruner`: finds rows whose time is over, archives them, and lets them go."""

from __future__ import annotations

import base64
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection

from loragate_server.config.retention import RetentionSection, span_of
from loragate_server.record.database import Database
from loragate_server.record.paging import Place
from loragate_server.record.retention import rows
from loragate_server.record.retention.archive import Archive
from loragate_server.record.retention.holds import Hold, holds_in_force, keep_holds_out
from loragate_server.record.retention.rows import OldRow, OldRows

Kind = Literal["decisions", "evidence", "reviews", "uploads", "blocked uploads", "log files"]

_LOGGER = logging.getLogger(__name__)


@dataclass
class Tally:
    """What goes, or went, of one kind.

    Attributes:
        before: what is older is over; None where this kind is kept forever.
        count: how many go.
        size_bytes: of what goes.
        held: by name of the hold, how many stay because of it.
        unreadable: how many stay because nobody can tell whether they are held.
        kept: why others stay, to how many.
    """

    kind: Kind
    before: datetime | None
    count: int = 0
    size_bytes: int = 0
    held: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    kept: Counter[str] = field(default_factory=Counter)


def cut_off(span: str, now: datetime) -> datetime | None:
    """The moment before which things of a span are over; None for never."""
    length = span_of(span)
    return None if length is None else now - length


@dataclass(frozen=True)
class _Work:
    kind: Kind
    find: OldRows
    remove: Callable[[Connection, Sequence[OldRow], datetime, str], int]


_DECISIONS = _Work("decisions", rows.old_decisions, rows.remove_decisions)
_EVIDENCE = _Work("evidence", rows.old_evidence, rows.remove_evidence)
_REVIEWS = _Work("reviews", rows.old_reviews, rows.remove_reviews)


class Pruner:
    """Goes through the database. Several may at once; what one took away the others do not find.

    Args:
        database: with a timeout that suits the size of its tables.
        settings: what is kept for how long.
        archive: where everything is written, and read again, before it goes.
        now: timezone-aware.
        checkpoint: called between two batches; what it raises ends the work.
    """

    def __init__(
        self,
        database: Database,
        settings: RetentionSection,
        archive: Archive,
        now: datetime,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._archive = archive
        self._now = now
        self._checkpoint = checkpoint
        decisions = cut_off(settings.decisions, now)
        evidence = [one for one in (decisions, cut_off(settings.evidence, now)) if one is not None]
        self._before = {
            "decisions": decisions,
            "evidence": max(evidence, default=None),
            "reviews": cut_off(settings.reviews, now),
        }

    def plan(self) -> list[Tally]:
        """What `prune` would take away now.

        Raises:
            NoDecisionError: DATABASE_UNAVAILABLE.
        """
        return [self._go_through(work, act=False) for work in (_DECISIONS, _EVIDENCE, _REVIEWS)]

    def prune(self) -> list[Tally]:
        """Takes away what is over.

        Raises:
            NoDecisionError: DATABASE_UNAVAILABLE or DISK_FULL.
            ArchiveError: nothing of the batch that could not be archived was taken away.
        """
        return [self._go_through(work, act=True) for work in (_DECISIONS, _EVIDENCE, _REVIEWS)]

    def _go_through(self, work: _Work, *, act: bool) -> Tally:
        before = self._before[work.kind]
        tally = Tally(work.kind, before)
        if before is None:
            return tally
        for batch in self._batches(work, before):
            self._checkpoint()
            free = self._not_held(work, batch, tally)
            gone = self._let_go(work, free) if act and free else len(free)
            tally.count += gone
            tally.size_bytes += sum(one.size_bytes for one in free) if gone == len(free) else 0
        if work.kind == "decisions":
            with self._database.reading() as connection:
                tally.kept["a block rests on them"] = rows.count_known(connection, before)
                waits = rows.count_waiting(connection, before, self._now)
                tally.kept["a reviewer has to look at them"] = waits
        return tally

    def _batches(self, work: _Work, before: datetime) -> Iterator[list[OldRow]]:
        after: Place | None = None
        while True:
            with self._database.reading() as connection:
                found = work.find(connection, before, self._now, after)
            if not found:
                return
            yield found
            after = Place(found[-1].made_at, found[-1].id)

    def _not_held(self, work: _Work, batch: Sequence[OldRow], tally: Tally) -> list[OldRow]:
        with self._database.reading() as connection:
            holds = holds_in_force(connection)
        free = []
        for one in batch:
            held = _held_by(work, one, holds)
            if held is None:
                tally.unreadable += 1
            elif held:
                tally.held.update(hold.name for hold in held)
            else:
                free.append(one)
        return free

    def _let_go(self, work: _Work, free: Sequence[OldRow]) -> int:
        """Archived and read again first; a hold that came meanwhile still counts."""
        at = self._archive.add_rows(work.kind, map(_archived, free))
        with self._database.writing() as connection:
            keep_holds_out(connection)
            holds = holds_in_force(connection)
            # None, for what nobody can tell, is not the same as no hold at all.
            still = [one for one in free if _held_by(work, one, holds) == []]
            return work.remove(connection, still, self._now, at) if still else 0


def _held_by(work: _Work, one: OldRow, holds: Sequence[Hold]) -> list[Hold] | None:
    """None where it cannot be told."""
    if one.payload is None:
        return None
    try:
        if work.kind == "reviews":
            return [hold for hold in holds if hold.holds_review(one.payload)]
        return [hold for hold in holds if hold.holds_decision(one.payload)]
    except (KeyError, TypeError, ValueError):
        return None


def _archived(one: OldRow) -> dict[str, Any]:
    signed = base64.b64encode(one.envelope).decode("ascii") if one.envelope else None
    return {"id": one.id, "made_at": one.made_at.isoformat(), "payload": one.payload,
            "envelope": signed}  # fmt: skip
