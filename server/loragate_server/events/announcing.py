"""`EventAnnouncer`: makes events of what is recorded, in the transaction that records it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cloudevents.core.bindings.http import to_structured_event
from cloudevents.core.v1.event import CloudEvent
from sqlalchemy import Connection, select

from loragate_server.config.events import EventKind, EventsSection
from loragate_server.events.content import (
    Content,
    kind_of_decision,
    kind_of_review,
    of_calibration,
)
from loragate_server.record.codec import parse_verdict
from loragate_server.record.ids import new_decision_id
from loragate_server.record.outbox import rows
from loragate_server.record.outbox.announcer import Announcer
from loragate_server.record.reviews.review import RecordedReview
from loragate_server.record.tables import audits
from loragate_server.record.verdict import Verdict

TYPE = "loragate.{kind}.v1"
"""The `type` of CloudEvents. What `data` means is never changed under the same version."""


class EventAnnouncer(Announcer):
    """Writes an event for each receiver that is told of its kind. Thread-safe."""

    def __init__(self, settings: EventsSection, console_url: str = "") -> None:
        """Args: `console_url` is the console's host as browsers see it; empty for no links."""
        self._source = settings.source
        self._content = Content(settings.scores, console_url)
        self._receivers = {
            kind: tuple(one.name for one in settings.receivers if kind in one.kinds)
            for kind in EventKind
        }

    def decided(self, connection: Connection, verdict: Verdict) -> None:
        """Tells of a binding BLOCK or REVIEW, under the decision's id."""
        kind = kind_of_decision(verdict)
        if kind is None or not self._receivers[kind]:
            return
        data = self._content.of_decision(verdict)
        self._add(connection, kind, verdict.decision_id, verdict.decided_at, data)

    def reviewed(self, connection: Connection, review: RecordedReview) -> None:
        """Tells of a ruling, or of a review that was opened again, under the review's id."""
        kind = kind_of_review(review)
        if kind is None or not self._receivers[kind]:
            return
        event = review.event
        query = select(audits.c.payload).where(audits.c.decision_id == event.decision_id)
        payload = connection.execute(query).scalar_one_or_none()
        data = self._content.of_review(review, parse_verdict(payload) if payload else None)
        self._add(connection, kind, event.review_id, event.reviewed_at, data)

    def uncalibrated(
        self, connection: Connection, base_model: str, concept_ids: Sequence[str], now: datetime
    ) -> bool:
        """Whether it had to be told that no calibration speaks for these concepts.

        Several replicas find it out, and each does so again at every start: it is told once.
        """
        kind = EventKind.CALIBRATION_STALE
        data = of_calibration(base_model, concept_ids)
        topic = topic_of(base_model, concept_ids)
        return self._add(connection, kind, new_decision_id(now), now, data, topic)

    def _add(
        self,
        connection: Connection,
        kind: EventKind,
        event_id: str,
        made_at: datetime,
        data: Mapping[str, Any],
        topic: str = "",
    ) -> bool:
        attributes = {
            "specversion": "1.0",
            "id": event_id,
            "source": self._source,
            "type": TYPE.format(kind=kind.value),
            "time": made_at,
            "datacontenttype": "application/json",
        }
        if subject := data.get("decision_id"):
            attributes["subject"] = subject
        # In one document, so that the signature is over the attributes as well.
        body = to_structured_event(CloudEvent(attributes, dict(data))).body.decode("ascii")
        event = rows.Event(event_id, kind.value, made_at, body, topic)
        return rows.add(connection, event, self._receivers[kind])


def topics_of(base_model: str) -> str:
    """What the names of all topics about a base model begin with."""
    return _digest(EventKind.CALIBRATION_STALE.value, base_model)


def topic_of(base_model: str, concept_ids: Sequence[str]) -> str:
    """The name of what is told once: a base model, and what its calibration does not speak for."""
    return topics_of(base_model) + _digest(*sorted(concept_ids))


def _digest(*words: str) -> str:
    """Half a topic: 32 hexadecimal digits."""
    text = "\n".join(words).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:32]
