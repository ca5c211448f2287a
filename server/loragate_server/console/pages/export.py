"""The verdicts of a search as one file, CSV or JSON, written while they are read."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from aiohttp import web

from loragate_server.console.pages.export_rows import COLUMNS, cells, values
from loragate_server.console.pages.filters import read_filters
from loragate_server.console.pages.verdicts import verdicts_page
from loragate_server.console.sources import SOURCES
from loragate_server.errors import NoDecisionError
from loragate_server.record.recorder import MAX_PAGE_SIZE, Recorder
from loragate_server.record.search import Search
from loragate_server.record.verdict import Verdict

MOST_EXPORTED = 20_000
"""Verdicts in one file; whoever needs more takes several spans of days."""

AT_ONCE = 2
WITHIN_S = 300.0

EXPORTS: Final = web.AppKey("exports", asyncio.Semaphore)

_log = logging.getLogger(__name__)
_TYPES = {"csv": "text/csv", "json": "application/json"}
_Written = Callable[[AsyncIterator[list[Verdict]]], AsyncIterator[str]]


async def export(request: web.Request) -> web.StreamResponse:
    """All verdicts that match the filters of the query, newest first, or none.

    Nothing is cut off silently: more than `MOST_EXPORTED` are refused before the file begins, and
    a file that cannot be finished ends with the connection, which browsers show as a failure.
    """
    filters = read_filters(request.query)
    if filters.faults:
        return verdicts_page(request, filters, status=HTTPStatus.BAD_REQUEST, found=[])
    recorder, places = request.app[SOURCES].recorder, request.app[EXPORTS]
    if places.locked():
        raise web.HTTPServiceUnavailable(
            text="Other exports are running. Try again in a moment.", headers={"Retry-After": "10"}
        )
    async with places:
        count = await asyncio.to_thread(
            recorder.database.count_found, filters.search, MOST_EXPORTED + 1
        )
        if count > MOST_EXPORTED:
            status = HTTPStatus.BAD_REQUEST
            return verdicts_page(request, filters, status=status, found=[], too_many=MOST_EXPORTED)
        return await _stream(request, recorder, filters.search)


async def _stream(request: web.Request, recorder: Recorder, search: Search) -> web.StreamResponse:
    kind = request.match_info["kind"]
    written: _Written = _as_csv if kind == "csv" else _as_json
    name = f"loragate-verdicts-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{kind}"
    response = web.StreamResponse(
        headers={
            "Content-Type": f"{_TYPES[kind]}; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{name}"',
        }
    )
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        async with asyncio.timeout(WITHIN_S):
            async for text in written(_pages(recorder, search)):
                await response.write(text.encode("utf-8", "replace"))
            await response.write_eof()
    except (NoDecisionError, TimeoutError, ConnectionError) as error:
        _log.warning("an export was broken off: %s", error or "its reader is too slow")
        _break_off(request)
    except asyncio.CancelledError:  # whoever ends the request would answer it a second time
        _break_off(request)
        raise
    except Exception:  # an error page would be written into the file
        _log.exception("an export failed")
        _break_off(request)
    return response


def _break_off(request: web.Request) -> None:
    """Ends the connection, so that half a file is not taken for a whole one."""
    if request.transport is not None:
        request.transport.abort()


async def _pages(recorder: Recorder, search: Search) -> AsyncIterator[list[Verdict]]:
    """At most `MOST_EXPORTED` verdicts; what is recorded meanwhile is newer and not among them."""
    token, left = "", MOST_EXPORTED
    while left > 0:
        size = min(MAX_PAGE_SIZE, left)
        found, token = await asyncio.to_thread(recorder.search, search, size, token)
        yield found
        left -= len(found)
        if not token:
            return


async def _as_csv(pages: AsyncIterator[list[Verdict]]) -> AsyncIterator[str]:
    # Spreadsheets take the file for UTF-8 where it says so.
    yield "\N{ZERO WIDTH NO-BREAK SPACE}" + _lines([COLUMNS])
    async for found in pages:
        yield _lines([cells(one) for one in found])


def _lines(rows: list[tuple[str, ...]]) -> str:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue()


async def _as_json(pages: AsyncIterator[list[Verdict]]) -> AsyncIterator[str]:
    lead = "["
    async for found in pages:
        for one in found:
            yield f"{lead}\n{json.dumps(values(one), ensure_ascii=True, allow_nan=False)}"
            lead = ","
    yield "[]\n" if lead == "[" else "\n]\n"
