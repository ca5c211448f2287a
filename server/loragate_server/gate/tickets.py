"""`Tickets`: places in the queue, given out before any byte of an adapter is looked at."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.progress import Leash

SHARE = 4
"""A caller may hold so many times the places that are free.

Dynamic thresholds (Choudhury and Hahne, 1998): one caller alone gets four fifths of all places, two
get four ninths each, and there is always one left for who comes next."""

MEASURED = 8
"""So many pieces of work have to be done before a wait is foretold."""

_FIRST_GUESS_S = 1.0
_EWMA_WEIGHT = 0.2


class Pace:
    """How long work takes, by what it has taken lately.

    Attributes:
        quick_s: until the first look is done.
        slow_s: for a suspect.
    """

    def __init__(self) -> None:
        self.quick_s = self.slow_s = _FIRST_GUESS_S
        self._measured = 0

    @property
    def known(self) -> bool:
        """Whether enough was measured to foretell a wait."""
        return self._measured >= MEASURED

    def took(self, seconds: float, *, suspicious: bool) -> None:
        """Takes one piece of work down."""
        self._measured += 1
        if suspicious:
            self.slow_s += _EWMA_WEIGHT * (seconds - self.slow_s)
        else:
            self.quick_s += _EWMA_WEIGHT * (seconds - self.quick_s)

    def hopeless(self, leash: Leash, wait_s: float) -> bool:
        """Whether the caller's deadline passes before work that waits so long can begin."""
        deadline = leash.deadline_monotonic_s
        return deadline is not None and self.known and time.monotonic() + wait_s > deadline


class Ticket:
    """A place in the queue, until the work begins or nobody waits for it any more."""

    def __init__(self, tickets: Tickets, caller: str) -> None:
        self._tickets = tickets
        self.caller = caller
        self.kept = False

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Holds the place for the block: work goes on for others whose question is equal.

        Else whoever asks, is joined and leaves would have work in the queue without a place.
        """
        self.kept = True
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """Gives the place back. Thread-safe; safe to call twice."""
        self._tickets.take_back(self)


class Tickets:
    """Gives out the places of one queue. Thread-safe."""

    def __init__(self, limit: int, pace: Pace) -> None:
        self.limit = limit
        self._pace = pace
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._out: set[Ticket] = set()

    def take(self, caller: str, leash: Leash, *, paid: bool = False) -> Ticket:
        """A place for one question.

        Args:
            caller: whose question it is.
            leash: of the question; one whose turn comes too late is refused now.
            paid: whether its bytes are there already, so that refusing it would waste them: such
                questions have as many places again.

        Raises:
            NoDecisionError: QUEUE_FULL.
        """
        with self._lock:
            self._require_room(caller, leash, 2 * self.limit if paid else self.limit)
            ticket = Ticket(self, caller)
            self._out.add(ticket)
            self._held[caller] += 1
            return ticket

    def require_room(self, caller: str, leash: Leash) -> None:
        """Refuses as `take` does, and takes no place.

        Raises:
            NoDecisionError: QUEUE_FULL.
        """
        with self._lock:
            self._require_room(caller, leash, self.limit)

    @contextmanager
    def one(self, caller: str, leash: Leash, *, paid: bool = False) -> Iterator[Ticket]:
        """A place inside the block, as `take`; or for as long as work keeps it."""
        ticket = self.take(caller, leash, paid=paid)
        try:
            yield ticket
        finally:
            if not ticket.kept:
                ticket.leave()

    def take_back(self, ticket: Ticket) -> None:
        """Takes a place back, once."""
        with self._lock:
            if ticket in self._out:
                self._out.discard(ticket)
                self._held[ticket.caller] -= 1
                if not self._held[ticket.caller]:
                    del self._held[ticket.caller]

    def _require_room(self, caller: str, leash: Leash, limit: int) -> None:
        own, total = self._held[caller], len(self._out)  # a Counter keeps no key that is read
        if total >= limit:
            raise self._refusal(f"{self.limit} audits wait already.", total)
        if own and own >= SHARE * (limit - total):
            raise self._refusal(f"{own} audits of yours wait already, of {self.limit} places.", own)
        # In turns: of every other caller at most one more than its own come before it.
        others = [count for name, count in self._held.items() if name != caller]
        ahead = own + sum(min(count, own + 1) for count in others)
        if self._pace.hopeless(leash, ahead * self._pace.quick_s):
            raise self._refusal("The audit's turn would come after its deadline.", ahead)

    def _refusal(self, message: str, ahead: int) -> NoDecisionError:
        return NoDecisionError(
            ErrorReason.QUEUE_FULL,
            message,
            remedy="Ask again later, or run more replicas.",
            metadata={"queue_limit": str(self.limit)},
            retry_after_s=max(0.1, ahead * self._pace.quick_s),
        )
