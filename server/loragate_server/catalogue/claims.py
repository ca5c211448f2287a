"""`Claims`: who audits which file, so that none is audited twice and none takes the job down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum


class Claim(StrEnum):
    """What is to be done about a file."""

    AUDIT = "audit"
    ALONE = "alone"
    """A process died while it was looked at beside others: now without them."""
    SAME = "same"
    """Its bytes are on record, or are audited at another place."""
    POISON = "poison"
    """A process died while it alone was looked at."""


class Claims:
    """Remembers what is on record, and what was begun. Lives in a process of its own.

    A task that is run again, because the process that ran it was killed, claims the same keys from
    the same places again. What was begun beside others is audited alone then, and what was begun
    alone before is poison: the file, not the machine, kills whoever looks at it.

    Args:
        recorded: keys of files that have their decision.
        responses: key to what the response stage measured of a file before (`earlier`).
    """

    def __init__(
        self, recorded: Iterable[str] = (), responses: Mapping[str, bytes] | None = None
    ) -> None:
        self._recorded = set(recorded)
        self._responses = dict(responses or {})
        self._places: dict[str, str] = {}
        self._begun: dict[str, Claim] = {}

    def claim(self, files: Sequence[tuple[str, str]]) -> list[Claim]:
        """Begins files, each named by its key and its place."""
        return [self._claim(key, place) for key, place in files]

    def responses(self, keys: Sequence[str]) -> list[bytes]:
        """What is known of each from before; nothing where nothing is."""
        return [self._responses.get(key, b"") for key in keys]

    def begin_alone(self, key: str) -> None:
        """The file is looked at by itself from now on."""
        self._begun[key] = Claim.ALONE

    def end(self, keys: Sequence[str]) -> None:
        """They were looked at, and whoever did it lives."""
        for key in keys:
            self._begun.pop(key, None)

    def _claim(self, key: str, place: str) -> Claim:
        if key in self._recorded or self._places.setdefault(key, place) != place:
            return Claim.SAME
        before = self._begun.get(key)
        if before is Claim.ALONE:
            return Claim.POISON
        if before is not None:
            return Claim.ALONE
        self._begun[key] = Claim.AUDIT
        return Claim.AUDIT
