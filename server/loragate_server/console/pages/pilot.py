"""Statistics: how often what was decided, and what another threshold would have meant."""

from __future__ import annotations

from aiohttp import web

from loragate_server.console.frame import WORDING, page
from loragate_server.console.pages.chart import chart
from loragate_server.console.pages.filters import read_days
from loragate_server.console.pages.pilot_figures import FIGURES, MOST_DECISIONS
from loragate_server.record.database import Span


async def pilot(request: web.Request) -> web.Response:
    """The figures of a span of days; of all there is without one."""
    typed = {name: request.query.get(name, "").strip()[:20] for name in ("since", "until")}
    faults: dict[str, str] = {}
    since, until = read_days(typed, faults)
    wording = request[WORDING]
    figures = None if faults else await request.app[FIGURES].of(Span(since, until))
    return page(
        request,
        "pilot",
        status=400 if faults else 200,
        typed=typed,
        faults=faults,
        figures=figures,
        most=MOST_DECISIONS,
        chart=chart(wording, figures.settings) if figures and figures.decisions else None,
        between=lambda share: wording(
            "pilot.between", low=wording.percent(share.low), high=wording.percent(share.high)
        ),
    )
