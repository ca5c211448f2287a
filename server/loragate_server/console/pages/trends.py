"""Trends: what was decided, found and settled, day by day."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, cast

from aiohttp import web

from loragate_server.console.assets import OWN_HEADERS
from loragate_server.console.frame import WORDING, address, page
from loragate_server.console.pages.durations import duration
from loragate_server.console.pages.filters import read_days
from loragate_server.console.pages.trend_figures import (
    MOST_DAYS,
    MOST_SETTLED,
    TREND_FIGURES,
    Days,
    Trends,
    Waited,
)
from loragate_server.console.pages.trend_pictures import (
    KINDS,
    SCHEMES,
    SIZES,
    Kind,
    Look,
    can_draw,
    draw,
)
from loragate_server.policy.decision import VerdictKind
from loragate_server.wording.printable import printable
from loragate_server.wording.wording import Wording

_USUAL = timedelta(days=29)
_PICTURE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
)
"""A picture has its style in it, which no page may have; it can do nothing else."""


@dataclass(frozen=True)
class Line:
    """A row of a table: a day, and what happened on it in words."""

    day: str
    cells: tuple[str, ...]


async def trends(request: web.Request) -> web.Response:
    """The page of a span of days; the newest thirty without one."""
    wording, faults = request[WORDING], dict[str, str]()
    typed = {name: request.query.get(name, "").strip()[:20] for name in ("since", "until")}
    days = read_span(typed, faults)
    found = None if days is None else await request.app[TREND_FIGURES].of(days)
    drawn = found is not None and await asyncio.to_thread(can_draw)
    return page(
        request,
        "trends",
        status=400 if faults else 200,
        typed=typed,
        faults=faults,
        days=days,
        trends=found,
        names={"verdicts": _verdict_names(wording), "concepts": _concept_names(wording, found)},
        lines=_tables(wording, found) if found else {},
        pictures=_addresses(request, days) if drawn and days else {},
        most=MOST_SETTLED,
    )


async def trend_picture(request: web.Request) -> web.Response:
    """One picture of the page, as SVG."""
    query, faults = request.query, dict[str, str]()
    days = read_span({name: query.get(name, "") for name in ("since", "until")}, faults)
    look = Look(query.get("scheme", "light"), query.get("size", "wide"))
    if days is None or look.scheme not in SCHEMES or look.size not in SIZES:
        raise web.HTTPBadRequest
    found = await request.app[TREND_FIGURES].of(days)
    kind = cast(Kind, request.match_info["kind"])
    try:
        picture = await asyncio.to_thread(draw, kind, found, look)
    except (ImportError, OSError) as error:
        raise web.HTTPNotFound from error
    request[OWN_HEADERS] = {"Content-Security-Policy": _PICTURE_POLICY}
    return web.Response(body=picture, content_type="image/svg+xml", charset="utf-8")


def read_span(typed: Mapping[str, str], faults: dict[str, str]) -> Days | None:
    """The days of two fields, both of which belong to the span; None with a fault for neither.

    Args:
        typed: has `since` and `until`; without the latter the span ends today, without the former
            it is thirty days long.
        faults: gets a key of the wording for a field that cannot be used.
    """
    since, until = read_days(typed, faults)
    if faults:
        return None
    last = (until - timedelta(days=1)).date() if until else datetime.now(UTC).date()
    first = since.date() if since else max(date.min + _USUAL, last) - _USUAL
    if last < first:
        faults["since"] = "trends.bad_span"
    elif (last - first).days >= MOST_DAYS:
        faults["since"] = "trends.too_long"
    return None if faults else Days(first, last)


def _verdict_names(wording: Wording) -> tuple[str, ...]:
    return tuple(wording(f"verdict.{kind.value}") for kind in VerdictKind)


def _concept_names(wording: Wording, found: Trends | None) -> tuple[str, ...]:
    series = found.concepts if found else ()
    return tuple(printable(one.name, 80) if one.key else wording("trends.others") for one in series)


def _tables(wording: Wording, found: Trends) -> dict[str, list[Line]]:
    """The rows of each table, the newest day first; days without anything are left out."""
    tables: dict[str, list[Line]] = {kind: [] for kind in KINDS}
    for place in reversed(range(len(found.days))):
        day = found.days[place].isoformat()
        for kind, series in (("verdicts", found.verdicts), ("concepts", found.concepts)):
            counts = [one.counts[place] for one in series]
            if any(counts):
                tables[kind].append(Line(day, tuple(wording.count(one) for one in counts)))
        waited = found.waited[place]
        if waited is not None:
            tables["waits"].append(Line(day, _waited(wording, waited)))
    return tables


def _waited(wording: Wording, waited: Waited) -> tuple[str, ...]:
    return (
        wording.count(waited.count),
        duration(wording, waited.median_s),
        duration(wording, waited.longest_s),
    )


def _addresses(request: web.Request, days: Days) -> dict[str, dict[str, str]]:
    """Of every kind of picture, in every look."""
    span = {"since": days.first.isoformat(), "until": days.last.isoformat()}
    return {
        kind: {
            f"{scheme}_{size}": str(
                address(request, "trend_picture", kind=kind).with_query(
                    {**span, "scheme": scheme, "size": size}
                )
            )
            for scheme in SCHEMES
            for size in SIZES
        }
        for kind in KINDS
    }
