"""`Announcer`: what is told to others about a row, in the transaction that writes the row."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Connection

from loragate_server.record.reviews.review import RecordedReview
from loragate_server.record.verdict import Verdict


class Announcer(Protocol):
    """Adds rows of its own on the connection that it is given, and does nothing else.

    What it raises undoes the row that it should have told of.
    """

    def decided(self, connection: Connection, verdict: Verdict) -> None:
        """A decision is being written."""

    def reviewed(self, connection: Connection, review: RecordedReview) -> None:
        """An act of a reviewer is being written; the decision that it is about is on record."""


class Silent(Announcer):
    """Tells nobody anything."""

    def decided(self, connection: Connection, verdict: Verdict) -> None:
        """Nothing."""

    def reviewed(self, connection: Connection, review: RecordedReview) -> None:
        """Nothing."""
