"""`ReviewBook`: the reviews in force, in memory, for a gate that must not wait for a database."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from loragate_server.policy.review import Ruling
from loragate_server.record.database import Database
from loragate_server.record.follow import POLL_INTERVAL_S, Follower
from loragate_server.record.reviews import rows as rows

STALE_AFTER_S = 30.0
"""Approvals are not believed when the database has not confirmed them for so long."""


class ReviewBook(Follower):
    """Follows the table of reviews, which other replicas write as well. Thread-safe.

    An act on this server is in force as soon as `refresh` returns, on others within a second. When
    the database does not answer, rejections stay in force and approvals lapse: one of them may have
    been taken back meanwhile.
    """

    def __init__(
        self,
        database: Database,
        *,
        poll_interval_s: float = POLL_INTERVAL_S,
        stale_after_s: float = STALE_AFTER_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("reviews", poll_interval_s)
        self._database = database
        self._stale_after_s = stale_after_s
        self._now = now
        self._monotonic = monotonic
        self._reading = threading.Lock()
        self._revision = (-1, "")
        self._confirmed_s = float("-inf")
        self._by_file: Mapping[str, tuple[Ruling, ...]] = {}
        self._rejected = frozenset[str]()

    def about(self, sha256s: Iterable[str]) -> tuple[Ruling, ...]:
        """The rulings in force about any of these files, sorted by id. Does not block."""
        by_file = self._by_file
        if not by_file:
            return ()
        found = {one.review_id: one for sha256 in sha256s for one in by_file.get(sha256, ())}
        now = self._now()
        fresh = self._monotonic() - self._confirmed_s <= self._stale_after_s
        return tuple(
            found[key]
            for key in sorted(found)
            if found[key].in_force(now) and (fresh or not found[key].approved)
        )

    @property
    def rejected(self) -> frozenset[str]:
        """The digests of all files that a rejection in force is about."""
        return self._rejected

    def refresh(self) -> None:
        """Reads what is new."""
        with self._reading:
            asked_s = self._monotonic()
            with self._database.reading() as connection:
                revision = rows.review_revision(connection)
                if revision != self._revision:
                    rulings = [one.ruling for one in rows.last_reviews(connection) if one.ruling]
                    self._by_file = _by_file(rulings)
                    self._rejected = frozenset().union(
                        *(one.subject.sha256s for one in rulings if not one.approved)
                    )
                    self._revision = revision
            self._confirmed_s = asked_s


def _by_file(rulings: Iterable[Ruling]) -> Mapping[str, tuple[Ruling, ...]]:
    found: dict[str, list[Ruling]] = defaultdict(list)
    for ruling in rulings:
        for sha256 in ruling.subject.sha256s:
            found[sha256].append(ruling)
    return {sha256: tuple(several) for sha256, several in found.items()}
