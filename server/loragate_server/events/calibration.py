"""`CalibrationWatch`: tells when the calibration of a base model no longer speaks for all concepts.

There is no row that this could be written with: it follows from files and from the library. So it
is looked at again and again, and whatever keeps it from being told now is made up for later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from loragate_server.events.announcing import EventAnnouncer, topic_of, topics_of
from loragate_server.record.database import Database
from loragate_server.record.outbox.rows import forget_topics

Uncalibrated = Mapping[str, Sequence[str]]
"""By base model the concepts that no calibration speaks for; none for one that is not served."""


class CalibrationWatch:
    """Looks when it is told to. Not thread-safe."""

    def __init__(
        self,
        database: Database,
        announcer: EventAnnouncer,
        uncalibrated: Callable[[], Uncalibrated],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._announcer = announcer
        self._uncalibrated = uncalibrated
        self._now = now
        self._told: dict[str, tuple[str, ...]] = {}

    def look(self) -> None:
        """Tells what has changed on this replica since it last looked. Blocks.

        Raises:
            NoDecisionError: DATABASE_UNAVAILABLE or DISK_FULL; the next look tells it.
        """
        for base_model, found in self._uncalibrated().items():
            unknown = tuple(sorted(found))
            if unknown != self._told.get(base_model):
                self._tell(base_model, unknown)
                self._told[base_model] = unknown

    def _tell(self, base_model: str, unknown: Sequence[str]) -> None:
        with self._database.writing() as connection:
            keep = topic_of(base_model, unknown) if unknown else ""
            forget_topics(connection, topics_of(base_model), keep)
            if unknown:
                self._announcer.uncalibrated(connection, base_model, unknown, self._now())
