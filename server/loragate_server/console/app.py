"""The console as an application, to be mounted below `/console`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from loragate_server.console.assets import ASSETS, asset, read_assets
from loragate_server.console.editing import Editing
from loragate_server.console.errors import show_errors
from loragate_server.console.frame import choose_language, keep_own_headers
from loragate_server.console.pages.audit import act, audit, report
from loragate_server.console.pages.changes import (
    act_on_change,
    change,
    change_picture,
    changes,
)
from loragate_server.console.pages.concepts import concept, concepts, picture
from loragate_server.console.pages.export import AT_ONCE, EXPORTS, export
from loragate_server.console.pages.new_change import new_change, propose
from loragate_server.console.pages.pilot import pilot
from loragate_server.console.pages.pilot_figures import FIGURES, Figures
from loragate_server.console.pages.queue import queue
from loragate_server.console.pages.trend_figures import TREND_FIGURES, TrendFigures
from loragate_server.console.pages.trends import trend_picture, trends
from loragate_server.console.pages.verdicts import verdicts
from loragate_server.console.sources import SOURCES, Sources

if TYPE_CHECKING:
    from loragate_server.access import Access

STATIC = "/static/{name}"
TREND_PICTURE = "/trends/{kind:verdicts|concepts|waits}.svg"


def console_application(sources: Sources, access: Access) -> web.Application:
    """Pages, style sheets, and what `access` puts in front of them.

    Args:
        sources: what the pages show.
        access: signs people in and keeps others out.
    """
    # Outermost the language, so that errors and refusals of the access are pages in it as well.
    application = web.Application(middlewares=[choose_language, show_errors])
    application[SOURCES] = sources
    application[ASSETS] = read_assets()
    application[FIGURES] = Figures(sources.recorder.database, sources.policy_file)
    application[TREND_FIGURES] = TrendFigures(sources.recorder.database)
    application[EXPORTS] = asyncio.Semaphore(AT_ONCE)
    access.install(application)
    application.on_response_prepare.append(keep_own_headers)
    router = application.router
    router.add_get("/", queue, name="queue")
    router.add_get("/verdicts", verdicts, name="verdicts")
    router.add_get("/verdicts/export.{kind:csv|json}", export, name="export")
    router.add_get("/audits/{decision_id}", audit, name="audit")
    router.add_post("/audits/{decision_id}", act)
    router.add_get("/audits/{decision_id}/report", report, name="report")
    router.add_get("/concepts", concepts, name="concepts")
    router.add_get("/concepts/{concept_id}", concept, name="concept")
    router.add_get("/concepts/{concept_id}/pictures/{sha256}", picture, name="picture")
    router.add_get("/trends", trends, name="trends")
    router.add_get(TREND_PICTURE, trend_picture, name="trend_picture")
    router.add_get("/statistics", pilot, name="pilot")
    if sources.editing is not None:
        _add_editing(application, sources.editing)
    router.add_get(STATIC, asset, name="asset")
    return application


def _add_editing(application: web.Application, editing: Editing) -> None:
    """The pages on which the concept library is changed; elsewhere there are no such addresses."""
    router = application.router
    router.add_get("/changes", changes, name="changes")
    router.add_post("/changes", propose)
    router.add_get("/changes/new", new_change, name="new_change")
    router.add_get("/changes/{change_id:[0-9a-f]{32}}", change, name="change")
    router.add_post("/changes/{change_id:[0-9a-f]{32}}", act_on_change)
    router.add_get(
        "/changes/{change_id:[0-9a-f]{32}}/pictures/{number:[0-9]{1,2}}",
        change_picture,
        name="change_picture",
    )

    async def close(_: web.Application) -> None:
        await editing.close()

    application.on_cleanup.append(close)
