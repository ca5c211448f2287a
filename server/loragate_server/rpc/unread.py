"""`Unread`: audits for which there is no room are refused before their messages are read."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.progress import Leash
from loragate_server.rpc.access import IDENTITY
from loragate_server.rpc.around import AroundInterceptor
from loragate_server.rpc.leash import call_leash
from loragate_server.rpc.metadata import metadata_values
from loragate_server.rpc.turnstile import host_of

INLINE_BYTES_KEY = "loragate-inline-bytes"
"""Metadata key, or header: how many bytes of adapters the message carries."""

REMEMBERED_S = 1.0
"""So long after an audit was refused for want of room its caller is taken to send files still."""

MOST_REMEMBERED = 1024
"""Callers; beyond, the one refused longest ago is forgotten, whose next message is read."""

RequireRoom = Callable[[str, Leash], None]
"""Raises NoDecisionError where there is no room for a question of a caller."""

_SIZE = re.compile(r"[0-9]{1,19}", re.ASCII)


class RefusedLately:
    """Whose files there was no room for a moment ago. Used from one event loop only.

    Args:
        now: a clock in seconds that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._refused_at_s: dict[str, float] = {}
        self._tried: set[str] = set()
        """Those of whom one message is read again, to see what they send now."""

    def note(self, asker: str) -> None:
        """Takes down that a question with bytes in it was read in vain."""
        self._forget(asker)
        self._refused_at_s[asker] = self._now()
        if len(self._refused_at_s) > MOST_REMEMBERED:
            self._forget(next(iter(self._refused_at_s)))

    def __len__(self) -> int:
        return len(self._refused_at_s)

    def __contains__(self, asker: str) -> bool:
        at_s = self._refused_at_s.get(asker)
        if at_s is None:
            return False
        if self._now() - at_s < REMEMBERED_S:
            return True
        if asker in self._tried:
            self._forget(asker)
        else:
            self._tried.add(asker)
            self._refused_at_s[asker] = self._now()
        return False

    def _forget(self, asker: str) -> None:
        self._refused_at_s.pop(asker, None)
        self._tried.discard(asker)


class Unread(AroundInterceptor):
    """Refuses what would be refused anyway once its message is there.

    It comes after the doorkeeper, who says whose room is asked for, and before the turnstile,
    inside which messages are read. Nobody is let in by it: what a call declares is only a reason
    to ask earlier, and whatever passes is looked at as if nothing had been declared.

    Who declares nothing is judged by what he sent a moment ago. A refusal here does not prolong
    that, for nobody has seen what the call would have carried: once in `REMEMBERED_S` a message is
    read again, and one that names a file whose answer is known gets it.

    Args:
        methods: that take files in their one message, as "/package.Service/Method".
        require_room: asked in the name of the caller.
        lately: who was refused, by the services that read the messages.
    """

    def __init__(
        self, methods: frozenset[str], require_room: RequireRoom, lately: RefusedLately
    ) -> None:
        super().__init__()
        self._methods = methods
        self._require_room = require_room
        self._lately = lately

    @contextmanager
    def around(self, method: str, context: grpc.aio.ServicerContext) -> Iterator[None]:
        """Looks at what the call declares."""
        if method in self._methods:
            self._look(context)
        yield

    def _look(self, context: grpc.aio.ServicerContext) -> None:
        declared = declared_bytes(context)
        if declared == 0:
            return
        asker = IDENTITY.get() or host_of(context.peer())
        if declared is None and asker not in self._lately:
            return
        with call_leash(context) as leash:
            self._require_room(asker, leash)


def declared_bytes(context: grpc.aio.ServicerContext) -> int | None:
    """How many bytes of adapters a call says to carry; None where it does not say.

    Raises:
        NoDecisionError: REQUEST_INVALID for what is no number of bytes, or several.
    """
    given = metadata_values(context, INLINE_BYTES_KEY)
    if not given:
        return None
    if len(given) > 1 or not _SIZE.fullmatch(given[0]):
        raise NoDecisionError(
            ErrorReason.REQUEST_INVALID,
            f"{INLINE_BYTES_KEY} is {given[0][:60]!r}, which is no number of bytes."
            if len(given) == 1
            else f"{INLINE_BYTES_KEY} is given {len(given)} times.",
            remedy="Send the number of bytes of adapters in the message, in decimal digits and "
            "once, or leave it out.",
            metadata={"field": INLINE_BYTES_KEY},
        )
    return int(given[0])
