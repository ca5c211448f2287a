"""The start page: reviews that wait for a person."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from loragate_server.console.frame import WORDING, address, page
from loragate_server.console.pages.durations import duration
from loragate_server.console.pages.references import viewing
from loragate_server.console.pages.rows import Row, row
from loragate_server.console.sources import SOURCES
from loragate_server.record.reviews.review import WaitingCase
from loragate_server.report.references import References, gravest, references
from loragate_server.severity import SEVERITIES


@dataclass(frozen=True)
class Waiting:
    """A case in the queue: a file, or files that are used together.

    Attributes:
        row: the newest decision about it.
        uses: how many wait; of different strengths, for example.
        state: key of the wording.
        age: for how long it has waited, in words.
        severity: of the gravest suspected concept, and in words.
        references: what the suspected concepts look like.
    """

    row: Row
    uses: int
    asked: int
    state: str
    age: str
    severity: str
    severity_words: str
    references: tuple[References, ...]


async def queue(request: web.Request) -> web.Response:
    """Cases that wait for a first or a second person, newest first."""
    reviews = request.app[SOURCES].reviews
    token = request.query.get("page_token", "")
    cases, next_token = await asyncio.to_thread(reviews.queue, page_token=token)
    count = await asyncio.to_thread(reviews.open_count)
    start = address(request, "queue")
    return page(
        request,
        "queue",
        waiting=[_waiting(request, one) for one in cases],
        count=count,
        first=str(start) if token else "",
        older=str(start.with_query(page_token=next_token)) if next_token else "",
    )


def _waiting(request: web.Request, case: WaitingCase) -> Waiting:
    wording, decision = request[WORDING], case.verdict.decision
    severity = gravest(case.severities)
    waited = datetime.now(UTC) - case.waiting_since
    return Waiting(
        row=row(wording, case.verdict),
        uses=case.uses,
        asked=case.asked,
        state=case.state.value,
        age=duration(wording, max(0.0, waited.total_seconds())),
        severity=severity if severity in SEVERITIES else "unknown",
        severity_words=wording.name("severity", severity),
        references=references(decision, viewing(request)),
    )
