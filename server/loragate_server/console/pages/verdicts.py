"""Recent verdicts, with filters in the address."""

from __future__ import annotations

import asyncio

from aiohttp import web

from loragate_server.console.frame import WORDING, address, page
from loragate_server.console.pages.filters import Filters, read_filters
from loragate_server.console.pages.rows import row
from loragate_server.console.sources import SOURCES
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.verdict import Verdict
from loragate_server.severity import SEVERITIES


async def verdicts(request: web.Request) -> web.Response:
    """A page of verdicts that match the filters of the query, newest first."""
    filters = read_filters(request.query)
    found: list[Verdict] = []
    next_token = ""
    token = request.query.get("page_token", "")
    if not filters.faults:
        recorder = request.app[SOURCES].recorder
        found, next_token = await asyncio.to_thread(
            recorder.search, filters.search, page_token=token
        )
    start = address(request, "verdicts")
    older = start.with_query({**filters.query, "page_token": next_token})
    return verdicts_page(
        request,
        filters,
        status=400 if filters.faults else 200,
        found=found,
        first=str(start.with_query(filters.query)) if token else "",
        older=str(older) if next_token else "",
    )


def verdicts_page(
    request: web.Request,
    filters: Filters,
    *,
    status: int,
    found: list[Verdict],
    first: str = "",
    older: str = "",
    too_many: int = 0,
) -> web.Response:
    """The page with the filters as they were typed.

    Args:
        request: answered with the page.
        filters: of the query.
        status: of the answer.
        found: the verdicts to show.
        first: link to the first page; "" for none.
        older: link to the next page; "" for none.
        too_many: as many verdicts as can be exported, where more were wanted; else 0.
    """
    return page(
        request,
        "verdicts",
        status=status,
        filters=filters,
        kinds=[kind.value for kind in VerdictKind],
        severities=SEVERITIES,
        concepts=[one.concept_id for one in request.app[SOURCES].library().forbidden],
        rows=[row(request[WORDING], one) for one in found],
        first=first,
        older=older,
        exports={
            kind: str(address(request, "export", kind=kind).with_query(filters.query))
            for kind in ("csv", "json")
        },
        too_many=too_many,
    )
