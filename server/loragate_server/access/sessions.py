"""Sessions: who has signed in, in a sealed cookie, for a fixed time."""

from __future__ import annotations

import heapq
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from loragate_server.access.refusals import AccessRefused, Refusal
from loragate_server.access.sealing import MAX_COOKIE_BYTES, Clock, CookieJar, Seal

COOKIE: Final = "loragate_session"
_MAX_SPENT: Final = 100_000


@dataclass(frozen=True)
class Person:
    """Somebody whose name and groups are believed.

    Attributes:
        groups: groups as the provider or proxy names them, at least those that give a role.
        binding: what the person's form tokens are bound to.
    """

    name: str
    groups: frozenset[str]
    binding: str


@dataclass(frozen=True)
class Session:
    """A person who has signed in."""

    id: str
    name: str
    groups: frozenset[str]
    started_s: float

    @property
    def person(self) -> Person:
        """Whose session it is; form tokens end with it."""
        return Person(self.name, self.groups, f"session {self.id}")


class Spent:
    """Remembers what may not be used again, until it would have expired anyway.

    In this process only: a second replica learns nothing of it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ids: set[str] = set()
        self._ends: list[tuple[float, str]] = []

    def __contains__(self, one: str) -> bool:
        return one in self._ids

    def add(self, one: str, until_s: float) -> bool:
        """Remembers it. False if it was there before."""
        now_s = self._clock()
        while self._ends and (self._ends[0][0] < now_s or len(self._ends) >= _MAX_SPENT):
            self._ids.discard(heapq.heappop(self._ends)[1])
        if one in self._ids:
            return False
        self._ids.add(one)
        heapq.heappush(self._ends, (until_s, one))
        return True


class Sessions:
    """Begins, reads and ends sessions. The cookie is all there is, so replicas share them.

    Its time is fixed when it begins; using it makes it no longer. Only groups that have a role
    stand in it, since some people are in hundreds; what role they give is decided anew at every
    request.
    """

    def __init__(
        self,
        secret: bytes,
        life_s: float,
        known_groups: Iterable[str],
        jar: CookieJar,
        clock: Clock,
    ) -> None:
        self._seal = Seal(secret, "session 1", clock)
        self._life_s, self._jar, self._clock = life_s, jar, clock
        self._known_groups = frozenset(known_groups)
        self._ended = Spent(clock)

    def begin(self, response: web.StreamResponse, name: str, groups: Iterable[str]) -> Session:
        """A new session, with an id of its own, in the answer's cookie.

        Raises:
            AccessRefused: the person's groups do not fit into a cookie.
        """
        known = self._known_groups & frozenset(groups)
        session = Session(secrets.token_urlsafe(16), name, known, self._clock())
        record = {
            "id": session.id,
            "name": name,
            "groups": sorted(known),
            "started_s": session.started_s,
        }
        sealed = self._seal.close(record)
        if len(sealed) > MAX_COOKIE_BYTES:
            raise AccessRefused(
                Refusal.GROUPS_UNUSABLE, f"{len(known)} groups with a role do not fit into a cookie"
            )
        self._jar.set(response, COOKIE, sealed, self._life_s)
        return session

    def read(self, request: web.Request) -> Session | None:
        """The session of the request; None if there is none, it has ended, or is not ours."""
        sealed = request.cookies.get(self._jar.name(COOKIE), "")
        record = self._seal.open(sealed, self._life_s) if sealed else None
        session = None if record is None else _session(record)
        return None if session is None or session.id in self._ended else session

    def end(self, request: web.Request, response: web.StreamResponse) -> Session | None:
        """Ends the request's session, so that a kept copy of the cookie is worth nothing here."""
        session = self.read(request)
        if session is not None:
            self._ended.add(session.id, session.started_s + self._life_s + 1)
        self._jar.clear(response, COOKIE)
        return session


def _session(record: dict[str, Any]) -> Session:
    return Session(
        record["id"], record["name"], frozenset(record["groups"]), float(record["started_s"])
    )
