"""How far a scan is, how fast, and how long it will take."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

DECIDED, SAME, REFUSED = OUTCOMES = ("decided", "same", "refused")
"""What may come of a file: a decision, that of another place's bytes, or why there is none."""

LOOKS = ("done", "failed")
"""How a listing of the source may end."""

RECENT_S = 120.0
"""The rate is that of so many seconds: what was slow an hour ago says little about the rest."""


@dataclass
class Progress:
    """Counts files as they are done.

    Attributes:
        total: files that the source lists.
        before: those that earlier runs had done.
        done: outcome to files, of this run; looks at a source that is followed are one run.
        responded: files that went to the response stage.
        recalled: those of them whose response was known from an earlier scan.
        looks: at the source, that succeeded and that failed.
    """

    total: int
    before: int = 0
    clock: Callable[[], float] = time.monotonic
    done: Counter[str] = field(default_factory=Counter)
    responded: int = 0
    recalled: int = 0
    looks: Counter[str] = field(default_factory=Counter)
    looked_unix_s: float = 0.0
    _earlier: int = 0
    _recent: deque[tuple[float, int]] = field(default_factory=deque)
    _last_s: float = 0.0

    def __post_init__(self) -> None:
        self._last_s = self.clock()
        self._recent.append((self._last_s, 0))

    def look(self, total: int, before: int) -> None:
        """The source was listed again: so many files, of which so many have their result."""
        self.total, self.before, self._earlier = total, before, self.done.total()
        self.looks["done"] += 1
        self.looked_unix_s = time.time()
        self._last_s = self.clock()
        self._recent.clear()
        self._recent.append((self._last_s, self.done.total()))

    def measured(self, times_s: Mapping[str, float]) -> None:
        """One file has a decision, for which its stages took so long."""
        response_s = times_s.get("response", 0.0)
        recalled = response_s == 0.0 and {"screen", "response"} <= times_s.keys()
        self.responded += recalled or response_s > 0.0
        self.recalled += recalled

    def add(self, outcome: str) -> None:
        """One file is done."""
        self.done[outcome] += 1
        self._last_s = now_s = self.clock()
        if now_s - self._recent[-1][0] >= 1.0:
            self._recent.append((now_s, self.done.total()))
            while len(self._recent) > 2 and now_s - self._recent[1][0] > RECENT_S:
                self._recent.popleft()

    @property
    def left(self) -> int:
        """Files that are not done."""
        return max(0, self.total - self._finished)

    @property
    def _finished(self) -> int:
        return self.before + self.done.total() - self._earlier

    @property
    def idle_s(self) -> float:
        """Seconds since a file was done, or since the start."""
        return self.clock() - self._last_s

    @property
    def per_s(self) -> float:
        """Files per second, lately; 0 before the first."""
        began_s, count = self._recent[0]
        spent_s = self.clock() - began_s
        return (self.done.total() - count) / spent_s if spent_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at the present rate; None while that is not known."""
        rate = self.per_s
        return self.left / rate if rate > 0 else None

    @property
    def line(self) -> str:
        """All of it for people."""
        done = self._finished
        share = done / self.total if self.total else 1.0
        parts = [f"{done} of {self.total} files ({share:.0%})", f"{self.per_s:.2f} a second"]
        parts += [f"{count} {outcome}" for outcome, count in sorted(self.done.items())]
        if self.recalled:
            parts.append(f"{self.recalled} of {self.responded} responses known from before")
        left_s = self.left_s
        if self.left and left_s is not None:
            parts.append(f"{_span(left_s)} left")
        return ", ".join(parts)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
