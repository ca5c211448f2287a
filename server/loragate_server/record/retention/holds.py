"""Holds: what nobody may prune, whatever its age, because somebody may be asked for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select, text, update

from loragate_server.record.tables import findings, holds, reviews

_SHA256 = re.compile("[0-9a-f]{64}")
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FOUND = ("REVIEW", "BLOCK")


class HoldError(ValueError):
    """A hold cannot be placed or released so; the text says why."""


@dataclass(frozen=True)
class Hold:
    """What is held, by one of three: a file, a concept, or a span of time.

    Attributes:
        sha256: decisions about this file, and the file in the store.
        concept: decisions in which this concept was suspected or found, and their files.
        since, until: timezone-aware; decisions made from `since` on and before `until`, and their
            files. None: without such an end.
        reason: for whoever asks why.
    """

    name: str
    reason: str
    sha256: str = ""
    concept: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise HoldError(
                f"{self.name!r} is no name: letters, digits, '.', '_' and '-', 64 at most"
            )
        if not self.reason.strip():
            raise HoldError("a hold needs a reason; it stands in the list of holds")
        timed = self.since is not None or self.until is not None
        if [bool(self.sha256), bool(self.concept), timed].count(True) != 1:
            raise HoldError("a hold is about a file, a concept or a span of time: one of them")
        if self.sha256 and not _SHA256.fullmatch(self.sha256):
            raise HoldError(f"{self.sha256!r} is no sha256: 64 digits 0-9 and a-f")
        if self.since and self.until and self.since >= self.until:
            raise HoldError("the span ends before it begins")

    def holds_file(self, sha256: str) -> bool:
        """Whether it is about this file."""
        return bool(self.sha256) and self.sha256 == sha256

    def holds_decision(self, payload: Mapping[str, Any]) -> bool:
        """Whether it is about a decision, given as the codec writes it."""
        decision = payload["decision"]
        if self.sha256:
            return any(one["sha256"] == self.sha256 for one in decision["evidence"]["adapters"])
        if self.concept:
            return any(
                one["evidence"]["concept_id"] == self.concept and one["verdict"] in _FOUND
                for one in decision["findings"]
            )
        return self._within(datetime.fromisoformat(payload["decided_at"]))

    def holds_review(self, payload: Mapping[str, Any]) -> bool:
        """Whether it is about a review, given as the codec writes it."""
        subject = payload["subject"]
        if self.sha256:
            return any(one["sha256"] == self.sha256 for one in subject["adapters"])
        if self.concept:
            return self.concept in subject["concept_ids"]
        return self._within(datetime.fromisoformat(payload["event"]["reviewed_at"]))

    def _within(self, moment: datetime) -> bool:
        return (self.since is None or self.since <= moment) and (
            self.until is None or moment < self.until
        )

    @property
    def about(self) -> str:
        """What is held, in words that `_parsed` reads."""
        if self.sha256 or self.concept:
            return self.sha256 or self.concept
        ends = (self.since, self.until)
        return "/".join("" if one is None else one.astimezone(UTC).isoformat() for one in ends)

    @property
    def kind(self) -> str:
        """What it is about: sha256, concept or time."""
        return "sha256" if self.sha256 else "concept" if self.concept else "time"


@dataclass(frozen=True)
class PlacedHold:
    """A hold on record. Times are timezone-aware; `released_at` is None while it is in force."""

    hold: Hold
    placed_at: datetime
    released_at: datetime | None
    release_reason: str


def place(connection: Connection, hold: Hold, now: datetime) -> None:
    """Puts a hold in force.

    Raises:
        HoldError: the name is taken, if only by one that was released.
    """
    if connection.execute(select(holds.c.name).where(holds.c.name == hold.name)).first():
        raise HoldError(f"there is a hold {hold.name} already; choose another name")
    connection.execute(
        insert(holds).values(
            name=hold.name, kind=hold.kind, about=hold.about, reason=hold.reason, placed_at=now
        )
    )


def release(connection: Connection, name: str, reason: str, now: datetime) -> None:
    """Ends a hold; it stays in the list.

    Raises:
        HoldError: no hold of this name is in force, or there is no reason.
    """
    if not reason.strip():
        raise HoldError("the release of a hold needs a reason")
    in_force = (holds.c.name == name) & holds.c.released_at.is_(None)
    done = connection.execute(
        update(holds).where(in_force).values(released_at=now, release_reason=reason)
    )
    if done.rowcount != 1:
        raise HoldError(f"no hold {name} is in force; `retention hold list` shows all")


def all_holds(connection: Connection) -> list[PlacedHold]:
    """Every hold that ever was, oldest first."""
    rows = connection.execute(select(holds).order_by(holds.c.placed_at, holds.c.name))
    return [
        PlacedHold(
            _parsed(row.name, row.reason, row.kind, row.about),
            row.placed_at,
            row.released_at,
            row.release_reason or "",
        )
        for row in rows
    ]


def holds_in_force(connection: Connection) -> tuple[Hold, ...]:
    """What is held now."""
    return tuple(one.hold for one in all_holds(connection) if one.released_at is None)


def concepts_on_record(connection: Connection) -> frozenset[str]:
    """The ids of all concepts that a decision suspected or found, or that a review was about.

    Goes through all reviews, which takes seconds where there are hundreds of thousands.
    """
    found = set(connection.execute(select(findings.c.concept_id).distinct()).scalars())
    for payload in connection.execute(select(reviews.c.payload)).scalars():
        found.update(json.loads(payload)["subject"]["concept_ids"])
    return frozenset(found)


def keep_holds_out(connection: Connection) -> None:
    """Until the transaction ends, nobody places a hold: it would come too late unseen.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE holds IN SHARE MODE"))


def names(found: Iterable[Hold]) -> str:
    """For people."""
    return ", ".join(one.name for one in found)


def _parsed(name: str, reason: str, kind: str, about: str) -> Hold:
    if kind == "time":
        since, until = (datetime.fromisoformat(one) if one else None for one in about.split("/"))
        return Hold(name, reason, since=since, until=until)
    if kind == "concept":
        return Hold(name, reason, concept=about)
    return Hold(name, reason, sha256=about)
