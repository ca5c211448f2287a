"""`Figures`: recorded decisions counted, and decided again with other thresholds."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from aiohttp import web

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import VerdictKind
from loragate_server.policy.parse import parse_policy
from loragate_server.record.database import Database, Span
from loragate_server.replay import SWEPT_P_VALUES, Tally, replay, with_block_p_value
from loragate_server.shares import interval

MOST_DECISIONS = 5000
_KEPT_S = 60.0
_MOST_KEPT = 8


@dataclass(frozen=True)
class Share:
    """A part of all decisions, with its interval at 95 %; shares are 0 to 1."""

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself; 0 of nothing."""
        return self.count / self.of if self.of else 0.0


@dataclass(frozen=True)
class Setting:
    """What a block_p_value would block. `in_force`: it is the one of the policy."""

    p_value: float
    blocked: Share
    in_force: bool


@dataclass(frozen=True)
class Pilot:
    """What the page shows.

    Attributes:
        recorded: what the policies of the time decided.
        settings: by rising block_p_value.
        blocked_now: under the policy in force.
        uses_p_value: whether that one has a block_p_value.
        measured_with: different libraries and engine versions.
        bounded: there are more decisions than were counted.
    """

    decisions: int
    oldest: datetime | None
    newest: datetime | None
    recorded: tuple[tuple[VerdictKind, Share], ...]
    settings: tuple[Setting, ...]
    blocked_now: Share
    uses_p_value: bool
    measured_with: int
    undecodable: int
    bounded: bool


class Figures:
    """Makes figures one at a time, and keeps them for a minute: they take seconds."""

    def __init__(self, database: Database, policy_file: Path) -> None:
        self._database = database
        self._policy_file = policy_file
        self._busy = asyncio.Lock()
        self._kept: dict[tuple[Span, str], tuple[float, Pilot]] = {}

    async def of(self, span: Span) -> Pilot:
        """The figures of a span.

        Raises:
            NoDecisionError: DATABASE_UNAVAILABLE, or POLICY_INVALID for the policy's file.
        """
        async with self._busy:
            data = await asyncio.to_thread(_read, self._policy_file)
            key = (span, hashlib.sha256(data).hexdigest())
            made_at, figures = self._kept.get(key, (-_KEPT_S, None))
            if figures is None or time.monotonic() - made_at >= _KEPT_S:
                figures = await asyncio.to_thread(_figures, self._database, span, data)
                self._kept.pop(key, None)
                self._kept[key] = time.monotonic(), figures
                while len(self._kept) > _MOST_KEPT:
                    self._kept.pop(next(iter(self._kept)))
            return figures


FIGURES: Final = web.AppKey("figures", Figures)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise NoDecisionError(
            ErrorReason.POLICY_INVALID,
            f"The policy {file.name} cannot be read: {error.strerror}.",
            remedy="Put a policy file that the server can read where its settings say.",
            metadata={"file": file.name},
        ) from error


def _figures(database: Database, span: Span, data: bytes) -> Pilot:
    policy = parse_policy(data)
    present = policy.defaults.block_p_value
    settings = sorted({*SWEPT_P_VALUES, *(() if present is None else (present,))})
    swept = [(setting, with_block_p_value(data, setting)) for setting in settings]
    tally = replay(database, span, policy, swept, 0, most_decisions=MOST_DECISIONS)
    counted = tally.decisions + len(tally.undecodable)
    return Pilot(
        decisions=tally.decisions,
        oldest=tally.oldest,
        newest=tally.newest,
        recorded=_recorded(tally),
        settings=tuple(
            Setting(setting, _share(tally.swept[setting], tally.decisions), setting == present)
            for setting in settings
        ),
        blocked_now=_share(sum(tally.blocked.values()), tally.decisions),
        uses_p_value=present is not None,
        measured_with=len(tally.origins),
        undecodable=len(tally.undecodable),
        bounded=counted >= MOST_DECISIONS and database.count(span) > counted,
    )


def _recorded(tally: Tally) -> tuple[tuple[VerdictKind, Share], ...]:
    counts: Counter[VerdictKind] = Counter()
    for (old, _), count in tally.pairs.items():
        counts[old] += count
    return tuple((kind, _share(counts[kind], tally.decisions)) for kind in VerdictKind)


def _share(count: int, of: int) -> Share:
    return Share(count, of, *interval(count, of))
