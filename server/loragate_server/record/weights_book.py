"""`WeightsBook`: which ruled-out files hold which weights, for a gate that must not wait."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from loragate_server.recent import REMEMBERED, RecentFiles
from loragate_server.record.database import Database
from loragate_server.record.follow import POLL_INTERVAL_S, Follower
from loragate_server.record.weights_rows import newest, read_weights, weights_since

OVERLAP = timedelta(minutes=1)
"""Read again each time: a decision may become visible later than one made after it."""

LOOK_AGAIN_S = 30.0
"""How often all ruled-out files are looked up whose weights are not known."""

UNKNOWN = "?"
"""Stands for the twins of a file whose weights are not at hand: no measured verdict has it."""

_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


class WeightsBook(Follower):
    """Knows which ruled-out files hold the same weights as a file. Thread-safe.

    A file that was rejected, or that the deny list names, would come back with another entry in
    its metadata. Its *twins* are such files with the weights of the file that is asked about.
    Which weights a file holds is known once anybody has asked about it: here at once, of what
    other replicas were asked within a second or two.

    Args:
        database: whose table of weights is followed.
        ruled: the digests of all files that are ruled out at present.
        remembered: how many other files' weights are kept, so that cached verdicts can be held
            against what is ruled out later.
    """

    def __init__(
        self,
        database: Database,
        ruled: Callable[[], frozenset[str]],
        *,
        remembered: int = REMEMBERED,
        poll_interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        super().__init__("weights", poll_interval_s)
        self._database = database
        self._ruled = ruled
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._seen = RecentFiles[str](remembered)
        self._ruled_weights: Mapping[str, str] = {}
        self._twins: Mapping[str, frozenset[str]] = {}
        self._looked_up = frozenset[str]()
        self._read_until: datetime | None = None
        self._again_at_s = 0.0

    def saw(self, sha256: str, weights_sha256: str) -> None:
        """Takes in what intake found in a file."""
        self._seen[sha256] = weights_sha256
        if sha256 in self._looked_up and sha256 not in self._ruled_weights:
            self._keep({sha256: weights_sha256}, self._looked_up)

    def twins_of(self, sha256: str, weights_sha256: str = "") -> tuple[str, ...]:
        """Other files with the weights of this one that are ruled out, sorted. Does not wait.

        Args:
            sha256: of the file.
            weights_sha256: what it holds, where the caller knows; "" asks what intake `saw`.

        Returns:
            `(UNKNOWN,)` where it is not known which weights the file holds and any are ruled out.
        """
        if not self._twins:
            return ()
        weights = weights_sha256 or self._seen.get(sha256)
        if not weights:
            return (UNKNOWN,)
        return tuple(sorted(self._twins.get(weights, frozenset()) - {sha256}))

    def refresh(self) -> None:
        """Reads the weights of what is ruled out now."""
        with self._reading:
            ruled = self._ruled()
            with self._database.reading() as connection:
                if self._read_until is None:
                    self._read_until = newest(connection) or _BEGINNING
                recent = weights_since(connection, self._read_until - OVERLAP)
                # No clock that is ahead may hide what others write meanwhile.
                self._read_until = min(newest(connection) or self._read_until, datetime.now(UTC))
                found = read_weights(connection, self._to_look_up(ruled))
            seen = {sha256: known for sha256 in ruled if (known := self._seen.get(sha256))}
            self._looked_up = ruled
            self._keep({**found, **recent, **seen}, ruled)

    def _to_look_up(self, ruled: frozenset[str]) -> frozenset[str]:
        """What is newly ruled out, and now and then all whose weights nobody has told yet.

        What becomes known later is recent then, unless the clock of who wrote it is behind.
        """
        if time.monotonic() < self._again_at_s:
            return ruled - self._looked_up
        self._again_at_s = time.monotonic() + LOOK_AGAIN_S
        return ruled - self._ruled_weights.keys()

    def _keep(self, more: Mapping[str, str], ruled: Iterable[str]) -> None:
        """Takes over what is ruled out, with the weights that are known of it."""
        with self._lock:
            known = {**self._ruled_weights, **more}
            self._ruled_weights = {sha256: known[sha256] for sha256 in ruled if sha256 in known}
            twins: defaultdict[str, set[str]] = defaultdict(set)
            for sha256, weights in self._ruled_weights.items():
                twins[weights].add(sha256)
            self._twins = {weights: frozenset(files) for weights, files in twins.items()}
