"""The start page: reviews that wait for a person."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from loragate_server.console.frame import WORDING, address, page
from loragate_server.console.pages.rows import Row, row
from loragate_server.console.sources import SOURCES


@dataclass(frozen=True)
class Waiting:
    """A review in the queue; `state` is a key of the wording."""

    row: Row
    asked: int
    state: str


async def queue(request: web.Request) -> web.Response:
    """Open reviews and those that wait for a second approval, newest first."""
    reviews = request.app[SOURCES].reviews
    wording = request[WORDING]
    token = request.query.get("page_token", "")
    cases, next_token = await asyncio.to_thread(reviews.queue, page_token=token)
    count = await asyncio.to_thread(reviews.open_count)
    start = address(request, "queue")
    return page(
        request,
        "queue",
        waiting=[Waiting(row(wording, one.verdict), one.asked, one.state.value) for one in cases],
        count=count,
        first=str(start) if token else "",
        older=str(start.with_query(page_token=next_token)) if next_token else "",
    )
