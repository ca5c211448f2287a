"""`Places`: a bounded number of peers at a time, of whom those who owe bytes make room first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class Place:
    """What one peer holds, from `Places.enter` until `leave`.

    Attributes:
        peer: who holds it; several places may be of one peer.
        give_up: ends what the peer does; called when another one takes the place.
    """

    peer: str
    give_up: Callable[[], None]
    _places: Places = field(repr=False)

    def waits(self) -> None:
        """From now on the peer owes bytes, and may have to make room."""
        self._places.waiting.pop(self, None)
        if self in self._places.taken:
            self._places.waiting[self] = None

    def works(self) -> None:
        """From now on it is the server that is busy for the peer; the place is safe."""
        self._places.waiting.pop(self, None)

    def leave(self) -> None:
        """Gives the place back. Safe to call twice."""
        self.give_up = _nothing  # else what is done here and the place would hold each other
        self._places.taken.discard(self)
        self._places.waiting.pop(self, None)


class Places:
    """Lets so many in, and no idle crowd keeps others out. Used from one event loop only.

    When all places are taken, one who owes bytes makes room for one who comes: of the peer that
    keeps most places waiting, the one that has been silent longest. Whoever sends what is due needs
    its place for milliseconds, so it is the idle ones who go, whatever names they come under.

    Attributes:
        taken: who is in.
        waiting: those of them who owe bytes, the one silent longest first.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"there must be at least one place, not {limit}")
        self.limit = limit
        self.taken: set[Place] = set()
        self.waiting: dict[Place, None] = {}

    def enter(self, peer: str, give_up: Callable[[], None]) -> Place | None:
        """A place, where the peer counts as one who owes bytes; None when nobody makes room."""
        if len(self.taken) >= self.limit and not self._make_room():
            return None
        place = Place(peer, give_up, self)
        self.taken.add(place)
        place.waits()
        return place

    def _make_room(self) -> bool:
        if not self.waiting:
            return False
        counts = Counter(place.peer for place in self.waiting)
        most = max(counts.values())
        out = next(place for place in self.waiting if counts[place.peer] == most)
        give_up = out.give_up
        out.leave()
        give_up()
        return True


def _nothing() -> None:
    """Ends nothing: the place is free."""
