"""`TrendFigures`: verdicts, concepts and the time that reviewers took, counted by day."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from typing import Final

from aiohttp import web

from loragate_server.policy.decision import VerdictKind
from loragate_server.record.by_day import (
    Counted,
    concepts_by_day,
    newest_names,
    settled_reviews,
    verdicts_by_day,
)
from loragate_server.record.database import Database, Span
from loragate_server.record.reviews.waits import Settled

MOST_DAYS = 366
MOST_CONCEPTS = 6
MOST_SETTLED = 5000
_KEPT_S = 60.0
_MOST_KEPT = 8


@dataclass(frozen=True)
class Days:
    """A span of whole days in UTC; `last` belongs to it."""

    first: date
    last: date

    @property
    def each(self) -> tuple[date, ...]:
        """Every day, the oldest first."""
        count = (self.last - self.first).days + 1
        return tuple(self.first + timedelta(days=number) for number in range(count))

    @property
    def span(self) -> Span:
        """The same as moments."""
        begin = datetime.combine(self.first, clock(), UTC)
        return Span(begin, begin + timedelta(days=len(self.each)))


@dataclass(frozen=True)
class Series:
    """One count a day. `name`: verdict, or what a concept is called; "" for all other concepts."""

    key: str
    name: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Waited:
    """How long reviews had waited that were settled on one day; seconds."""

    count: int
    median_s: float
    longest_s: float


@dataclass(frozen=True)
class Trends:
    """What the page shows; every tuple has one entry a day.

    Attributes:
        concepts: the most frequent ones, and the others together where there are more.
        waited: None on days on which no review was settled.
        bounded: there are more settled reviews than were counted.
    """

    days: tuple[date, ...]
    verdicts: tuple[Series, ...]
    concepts: tuple[Series, ...]
    waited: tuple[Waited | None, ...]
    bounded: bool

    @property
    def empty(self) -> bool:
        """Whether nothing happened on any day."""
        return not any(any(one.counts) for one in self.verdicts) and not any(self.waited)


class TrendFigures:
    """Counts one span at a time, and keeps it for a minute: the pictures ask for it as well."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._busy = asyncio.Lock()
        self._kept: dict[Days, tuple[float, Trends]] = {}

    async def of(self, days: Days) -> Trends:
        """The figures of a span of at most `MOST_DAYS` days; NoDecisionError of the database."""
        async with self._busy:
            made_at, found = self._kept.get(days, (0.0, None))
            if found is None or time.monotonic() - made_at >= _KEPT_S:
                found = await asyncio.to_thread(_trends, self._database, days)
                self._kept.pop(days, None)
                self._kept[days] = time.monotonic(), found
                while len(self._kept) > _MOST_KEPT:
                    self._kept.pop(next(iter(self._kept)))
            return found


TREND_FIGURES: Final = web.AppKey("trend_figures", TrendFigures)


def _trends(database: Database, days: Days) -> Trends:
    span = days.span
    with database.reading() as connection:
        verdicts = verdicts_by_day(connection, span)
        concepts = concepts_by_day(connection, span)
        settled = settled_reviews(connection, span, MOST_SETTLED + 1)
        top = _most_frequent(concepts)
        names = newest_names(connection, top)
    each = days.each
    kinds = tuple(kind.value for kind in VerdictKind)
    return Trends(
        days=each,
        verdicts=tuple(Series(kind, kind, _counts(verdicts, (kind,), each)) for kind in kinds),
        concepts=_concepts(concepts, top, names, each),
        waited=_waited(settled[:MOST_SETTLED], each),
        bounded=len(settled) > MOST_SETTLED,
    )


def _most_frequent(found: Iterable[Counted]) -> tuple[str, ...]:
    totals: Counter[str] = Counter()
    for one in found:
        totals[one.name] += one.count
    ordered = sorted(totals, key=lambda name: (-totals[name], name))
    return tuple(ordered[:MOST_CONCEPTS])


def _concepts(
    found: list[Counted], top: tuple[str, ...], names: Mapping[str, str], each: tuple[date, ...]
) -> tuple[Series, ...]:
    series = [Series(key, names.get(key) or key, _counts(found, (key,), each)) for key in top]
    others = {one.name for one in found} - set(top)
    if others:
        series.append(Series("", "", _counts(found, others, each)))
    return tuple(series)


def _counts(
    found: Iterable[Counted], names: Iterable[str], each: tuple[date, ...]
) -> tuple[int, ...]:
    wanted, by_day = set(names), Counter[date]()
    for one in found:
        if one.name in wanted:
            by_day[one.day] += one.count
    return tuple(by_day[day] for day in each)


def _waited(settled: Iterable[Settled], each: tuple[date, ...]) -> tuple[Waited | None, ...]:
    by_day: dict[date, list[float]] = defaultdict(list)
    for one in settled:
        by_day[one.settled_at.astimezone(UTC).date()].append(one.waited_s)
    return tuple(
        Waited(len(by_day[day]), statistics.median(by_day[day]), max(by_day[day]))
        if day in by_day
        else None
        for day in each
    )
