"""What the sending of events tells whoever counts; it knows no metrics library."""

from __future__ import annotations


class EventObserver:
    """Told of every attempt, and does nothing about it: subclasses count. Must not block."""

    def event_delivered(self, receiver: str, kind: str) -> None:
        """A receiver has taken an event."""

    def event_failed(self, receiver: str, kind: str) -> None:
        """An attempt failed."""
