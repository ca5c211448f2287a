"""The reference pictures of concepts, as far as the console may show them."""

from __future__ import annotations

from aiohttp import web

from loragate_server.console.sources import SOURCES
from loragate_server.report.references import Viewing


def viewing(request: web.Request) -> Viewing:
    """What may be seen of the library in force."""
    sources = request.app[SOURCES]
    return Viewing(
        sources.library().get,
        sources.reviews.rules.four_eyes_severities,
        sources.sensitive_categories,
    )
