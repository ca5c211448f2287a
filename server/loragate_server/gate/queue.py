"""`FairQueue`: whose work comes next. Two lanes, and in each every caller has an equal share.

The kept ideas: start-time fair queueing (Goyal, Vin and Cheng, 1996), by the seconds that work has
really taken; and lanes, so that what is quickly told waits for none that takes long.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from enum import StrEnum

from loragate_server.gate.job import Job


class Lane(StrEnum):
    """How far work has come."""

    QUICK = "quick"
    """It has not been looked at yet, and most of it ends at the first look."""
    SLOW = "slow"
    """The first look made it a suspect, which takes a hundred times as long."""


WEIGHTS = {Lane.QUICK: 4.0, Lane.SLOW: 1.0}
"""Of the worker's time while both lanes have work: suspects get a fifth, however many others come,
and the others four fifths, however many suspects."""

_MOST_CLOCKS = 1024


class Clocks:
    """A clock of served seconds for everyone who takes part; the slowest comes next.

    Who comes back after a pause starts at the present time: nobody saves up for a crowd. Time goes
    on by each one's share of the work that is done, so that those who were served once do not
    stand behind every stranger who is new: somebody may have as many names as he likes.
    """

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self._now = 0.0

    def arrive(self, name: str) -> None:
        """Somebody has work again who had none."""
        self._served[name] = max(self._now, self._served.get(name, 0.0))

    def served(self, name: str) -> float:
        """What somebody has been served, or would start from."""
        return self._served.get(name, self._now)

    def take(self, name: str) -> None:
        """Somebody's work begins, which makes that the present time."""
        self._now = max(self._now, self.served(name))
        self._forget()

    def charge(self, name: str, seconds: float, among: float) -> None:
        """Somebody was served while so many took part, he among them."""
        self._served[name] = self.served(name) + seconds
        self._now += seconds / among
        self._forget()

    def _forget(self) -> None:
        """Drops those who have been served no more than others, when there are many."""
        if len(self._served) > _MOST_CLOCKS:
            self._served = {one: at for one, at in self._served.items() if at > self._now}


class FairQueue:
    """Work that waits. Not thread-safe: whoever uses it holds a lock."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, dict[str, deque[Job]]] = {lane: {} for lane in Lane}
        self._lane_clocks = Clocks()
        self._clocks = {lane: Clocks() for lane in Lane}

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Job]:
        for lane in self._lanes.values():
            for waiting in list(lane.values()):
                yield from list(waiting)

    def put(self, job: Job) -> None:
        """Adds work, behind what its caller has in the same lane."""
        lane = lane_of(job)
        if not self._lanes[lane]:
            self._lane_clocks.arrive(lane)
        if job.caller not in self._lanes[lane]:
            self._clocks[lane].arrive(job.caller)
            self._lanes[lane][job.caller] = deque()
        self._lanes[lane][job.caller].append(job)

    def pop(self) -> Job:
        """Takes the work that comes next.

        Raises:
            IndexError: there is none.
        """
        lanes = [lane for lane in Lane if self._lanes[lane]]
        if not lanes:
            raise IndexError("nothing waits")
        return self._pop(min(lanes, key=self._lane_clocks.served))

    def pop_before_slow(self) -> Job | None:
        """Takes quick work that comes before slow work that has begun, if there is any."""
        served = self._lane_clocks.served
        if not self._lanes[Lane.QUICK] or served(Lane.QUICK) > served(Lane.SLOW):
            return None
        return self._pop(Lane.QUICK)

    def pop_alike(self, first: Job, most: int, most_bytes: int, each_s: float) -> list[Job]:
        """Takes quick work that may begin together with `first`, as it would come one by one.

        Args:
            first: taken before, and not charged yet.
            most: so many at most.
            most_bytes: of their files, with those of `first`.
            each_s: what one usually takes.
        """
        callers, clocks = self._lanes[Lane.QUICK], self._clocks[Lane.QUICK]
        taken_s = defaultdict[str, float](float, {first.caller: each_s})
        sharing, found = first.sharing, list[Job]()
        left_bytes = most_bytes - (0 if sharing is None else sharing.size_bytes)
        while callers and len(found) < most:
            caller = min(callers, key=lambda name: clocks.served(name) + taken_s[name])
            other = callers[caller][0].sharing
            if sharing is None or other is None or other.alike != sharing.alike:
                break
            left_bytes -= other.size_bytes
            if left_bytes < 0:
                break
            found.append(self._take(Lane.QUICK, caller))
            taken_s[caller] += each_s
        return found

    def remove(self, job: Job) -> None:
        """Takes work out that nobody waits for any more; does nothing where it is not here."""
        lane = self._lanes[lane_of(job)]
        waiting = lane.get(job.caller, ())
        if job in waiting:
            lane[job.caller].remove(job)
            if not lane[job.caller]:
                del lane[job.caller]

    def charge(self, job: Job, seconds: float) -> None:
        """Takes down that a job was worked at for so long."""
        lane = lane_of(job)
        weight = WEIGHTS[lane]
        self._lane_clocks.charge(lane, seconds / weight, sum(WEIGHTS.values()) / weight)
        self._clocks[lane].charge(job.caller, seconds, len({*self._lanes[lane], job.caller}))

    def clear(self) -> list[Job]:
        """Takes everything out."""
        left = list(self)
        for lane in self._lanes.values():
            lane.clear()
        return left

    def _pop(self, lane: Lane) -> Job:
        return self._take(lane, min(self._lanes[lane], key=self._clocks[lane].served))

    def _take(self, lane: Lane, caller: str) -> Job:
        callers = self._lanes[lane]
        job = callers[caller].popleft()
        if not callers[caller]:
            del callers[caller]
        self._lane_clocks.take(lane)
        self._clocks[lane].take(caller)
        return job


def lane_of(job: Job) -> Lane:
    """Where a job waits."""
    return Lane.SLOW if job.suspicious else Lane.QUICK
