"""Which files of a source that is followed are looked at now: written to the end, and due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.failure import AGAIN
from loragate_server.catalogue.known import Known

SETTLES_S = 10.0
"""A local file that has not changed for so long counts as written."""

LONGEST_UNSETTLED_S = 600.0
"""A file that has changed at every look for so long is taken as it is: whoever touches it again and
again would keep it from ever being looked at."""

LONGEST_PAUSE_S = 3600.0
"""Between two tries of a file whose reading or audit failed."""


@dataclass(frozen=True)
class _Seen:
    """A version of a file that may still be written, and since when it is there (our clock).

    `unsettled_s` is since when no version of it has stayed or been taken.
    """

    version: str
    since_s: float
    unsettled_s: float


@dataclass(frozen=True)
class _Failed:
    """A version of a file that failed, how often it was tried, and when it is due."""

    version: str
    tries: int
    due_s: float


class Following:
    """Remembers what is unfinished, from look to look.

    A file is taken when its time of change lies some seconds back. One whose time lies ahead of the
    clock, as a store with another clock or whoever made it may have it, is taken when it stayed the
    same for as long in front of our own eyes. One that never rests is taken after
    `LONGEST_UNSETTLED_S` all the same.

    Args:
        pause_s: before a file that failed is tried again; twice as long each time.
        clock: seconds, rising.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        pause_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._wall = wall
        self._unsettled: dict[str, _Seen] = {}
        self._failed: dict[str, _Failed] = {}

    def settled(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        """The entries but those that somebody may still be writing; a later look has them."""
        before, self._unsettled = self._unsettled, {}
        for entry in entries:
            if not entry.changed_unix_s or self._wall() - entry.changed_unix_s >= SETTLES_S:
                yield entry
                continue
            now_s, seen = self._clock(), before.get(entry.location)
            if seen is None:
                seen = _Seen(entry.version, now_s, now_s)
            elif seen.version != entry.version:
                seen = replace(seen, version=entry.version, since_s=now_s)
            stayed = now_s - seen.since_s >= SETTLES_S
            settled = stayed or now_s - seen.unsettled_s >= LONGEST_UNSETTLED_S
            if settled:
                seen = replace(seen, unsettled_s=now_s)
            self._unsettled[entry.location] = seen
            if settled:
                yield entry

    def due(self, known: Mapping[str, Known]) -> set[str]:
        """Places that are tried again now although they have a result, because it is a failure."""
        now_s, due = self._clock(), set()
        for place, one in known.items():
            if not one.refused or one.reason not in AGAIN:
                self._failed.pop(place, None)
                continue
            failed = self._failed.get(place)
            if failed is None or failed.version != one.version:
                self._failed[place] = _Failed(one.version, 1, now_s + self._pause_s)
            elif now_s >= failed.due_s:
                pause_s = min(self._pause_s * 2 ** min(failed.tries, 30), LONGEST_PAUSE_S)
                self._failed[place] = _Failed(one.version, failed.tries + 1, now_s + pause_s)
                due.add(place)
        return due
