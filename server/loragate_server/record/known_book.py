"""`KnownBook`: uses on record as blocked, in memory, for a gate that must not wait."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain, combinations, islice, product
from math import atan2, hypot

from loragate_server.policy.known import KnownUse, Members
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.record.database import Database
from loragate_server.record.follow import POLL_INTERVAL_S, Follower
from loragate_server.record.known_rows import count_known, known_of, known_since
from loragate_server.record.verdict import Verdict

OVERLAP = timedelta(minutes=1)
"""Read again each time: a decision may become visible later than one made after it."""

MOST_WAYS = 4096
"""Ways in which a request may use files; beyond it they count as not allowed."""

Wanted = Sequence[tuple[ReviewedAdapter, ...]]
"""What a request asks about: per adapter, each way in which it may be used."""


@dataclass
class _Files:
    """What is known about some files on one base model: by use, the newest decision."""

    sha256s: Counter[str]
    newest: dict[Members, KnownUse] = field(default_factory=dict)

    def take(self, use: KnownUse) -> bool:
        """Keeps the newer one of two decisions about the same use; whether that is this one."""
        before = self.newest.get(use.members)
        if before is not None and _order(use) <= _order(before):
            return False
        self.newest[use.members] = use
        return True

    @property
    def blocked(self) -> KnownUse | None:
        """The newest use that is blocked; None where all were allowed again."""
        blocked = [use for use in self.newest.values() if use.blocked]
        return max(blocked, key=_order, default=None)

    def allows(self, members: Members) -> bool:
        """Whether the newest decision about exactly this use allows it."""
        use = self.newest.get(members)
        return use is not None and not use.blocked


class KnownBook(Follower):
    """Follows the table of known uses, which other replicas write as well. Thread-safe.

    What is blocked here counts as soon as it is recorded, on other replicas within a second or two.
    When the database does not answer, what is known stays known; no decision can be recorded then.
    """

    def __init__(self, database: Database, *, poll_interval_s: float = POLL_INTERVAL_S) -> None:
        super().__init__("known uses", poll_interval_s)
        self._database = database
        self._lock = threading.Lock()
        self._files: dict[tuple[str, tuple[str, ...]], _Files] = {}
        self._by_file: defaultdict[tuple[str, str], list[_Files]] = defaultdict(list)
        self._read_until: datetime | None = None
        self._rows = 0
        self._read: set[tuple[str, Members]] = set()
        self._revision = 0

    def about(self, wanted: Wanted, base_digest: str) -> tuple[KnownUse, ...]:
        """Blocked uses of some, but not all, of the files; sorted by decision. Does not wait.

        Args:
            wanted: the adapters of a request, each in every way in which it may be used.
            base_digest: of the base model.
        """
        with self._lock:
            if not self._files:
                return ()
            files = Counter(ways[0].sha256 for ways in wanted)
            found = [
                blocked
                for sha256 in files
                for known in self._by_file.get((base_digest, sha256), ())
                if known.sha256s.total() < len(wanted)
                and known.sha256s <= files
                and (blocked := known.blocked) is not None
                and not _allowed(known, wanted)
            ]
        return tuple(sorted(found, key=lambda use: use.decision_id))

    @property
    def revision(self) -> int:
        """Another number whenever something else is known."""
        return self._revision

    def alone(self) -> tuple[KnownUse, ...]:
        """Of each file that stands blocked alone, the weakest use in each of 63 proportions.

        What was blocked with its text encoder turned up, or at a strength below 0, says little of
        the file at other proportions of the two strengths.
        """
        found: dict[tuple[str, str, str, float], KnownUse] = {}
        with self._lock:
            files = [known for known in self._files.values() if known.sha256s.total() == 1]
            uses = [use for known in files for use in known.newest.values() if use.blocked]
        for use in sorted(uses, key=_strongest_first):
            [way] = use.members
            angle = round(atan2(way.text_encoder_strength, way.denoiser_strength), 1)
            found[use.base_digest, way.sha256, way.config_sha256, angle] = use
        return tuple(sorted(found.values(), key=lambda use: (use.decision_id, use.members)))

    def learn(self, verdict: Verdict) -> None:
        """Takes in what was just recorded here, before the table is read again."""
        self._take(known_of(verdict))

    def refresh(self) -> None:
        """Reads what is new, and everything where something older has appeared.

        That was decided by a replica whose clock is behind, or took long to become visible.
        """
        since = None if self._read_until is None else self._read_until - OVERLAP
        with self._database.reading() as connection:
            count = count_known(connection)
            rows = known_since(connection, since)
            read = {(use.decision_id, use.members) for use in rows}
            if since is not None and count - self._rows != len(read - self._read):
                rows = known_since(connection, None)
                read = {(use.decision_id, use.members) for use in rows}
        self._take(rows)
        self._rows, self._read = count, read
        if rows:
            # No clock that is ahead may hide what other replicas decide meanwhile.
            self._read_until = min(rows[-1].decided_at, datetime.now(UTC))

    def _take(self, uses: Iterable[KnownUse]) -> None:
        with self._lock:
            for use in uses:
                key = (use.base_digest, use.sha256s)
                known = self._files.get(key)
                if known is None:
                    if not use.blocked:
                        continue
                    known = self._files[key] = _Files(Counter(use.sha256s))
                    # Under one of its files only: whoever asks about all asks about that one.
                    self._by_file[use.base_digest, use.sha256s[0]].append(known)
                self._revision += known.take(use)


def _allowed(known: _Files, wanted: Wanted) -> bool:
    """Whether every use that a request may make of the files alone has been allowed since."""
    for number, members in enumerate(_ways(known.sha256s, wanted)):
        if number >= MOST_WAYS or not known.allows(members):
            return False
    return True


def _ways(sha256s: Counter[str], wanted: Wanted) -> Iterator[Members]:
    """Every use of just these files, or as many as tell that there are more than `MOST_WAYS`."""
    asked = {sha256: [ways for ways in wanted if ways[0].sha256 == sha256] for sha256 in sha256s}
    of_each = (
        islice(combinations(asked[sha256], count), MOST_WAYS) for sha256, count in sha256s.items()
    )
    for chosen in product(*of_each):
        for members in product(*chain.from_iterable(chosen)):
            yield tuple(sorted(members))


def _strongest_first(use: KnownUse) -> tuple[float, str, Members]:
    [way] = use.members
    size = hypot(way.denoiser_strength, way.text_encoder_strength)
    return -size, use.decision_id, use.members


def _order(use: KnownUse) -> tuple[datetime, str]:
    return use.decided_at, use.decision_id
