"""Recent verdicts, with filters in the address."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from aiohttp import web

from loragate_server.console.frame import WORDING, address, page
from loragate_server.console.pages.rows import row
from loragate_server.console.sources import SOURCES
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.search import Search
from loragate_server.record.verdict import Verdict

FIELDS = ("verdict", "adapter", "service", "tenant", "base_model", "since", "until")
_DIGITS = re.compile(r"[0-9a-f]{8,64}")
_LONGEST = 200


@dataclass(frozen=True)
class Filters:
    """Filters as they were typed, what they mean, and what is wrong with them.

    Attributes:
        typed: field to text; every field is there.
        faults: field to a key of the wording; the search is of no use if there are any.
    """

    typed: dict[str, str]
    search: Search
    faults: dict[str, str]

    @property
    def query(self) -> dict[str, str]:
        """The fields that are not empty, for links."""
        return {name: text for name, text in self.typed.items() if text}


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
    return page(
        request,
        "verdicts",
        status=400 if filters.faults else 200,
        filters=filters,
        kinds=[kind.value for kind in VerdictKind],
        rows=[row(request[WORDING], one) for one in found],
        first=str(start.with_query(filters.query)) if token else "",
        older=str(older) if next_token else "",
    )


def read_filters(query: Mapping[str, str]) -> Filters:
    """The filters in a query. Unknown fields are not looked at."""
    typed = {name: query.get(name, "").strip()[:_LONGEST] for name in FIELDS}
    faults: dict[str, str] = {}
    digits = typed["adapter"].lower()
    if typed["verdict"] and typed["verdict"] not in list(VerdictKind):
        faults["verdict"] = "filter.bad_verdict"
    if digits and not _DIGITS.fullmatch(digits):
        faults["adapter"] = "filter.bad_adapter"
    since, until = read_days(typed, faults)
    if faults:
        return Filters(typed, Search(), faults)
    search = Search(
        verdict=VerdictKind(typed["verdict"]) if typed["verdict"] else None,
        adapter_sha256=digits,
        service=typed["service"],
        tenant=typed["tenant"],
        base_model=typed["base_model"],
        since=since,
        until=until,
    )
    return Filters(typed, search, faults)


def read_days(
    typed: Mapping[str, str], faults: dict[str, str]
) -> tuple[datetime | None, datetime | None]:
    """The span from the day `since` to the end of the day `until`, both UTC.

    Args:
        typed: has both fields; an empty one leaves its side open.
        faults: gets a key of the wording for a field that cannot be used.
    """
    ends: list[datetime | None] = []
    for name, days in (("since", 0), ("until", 1)):
        try:
            day = date.fromisoformat(typed[name]) if typed[name] else None
            begin = datetime.combine(day, time(), UTC) if day else None
            ends.append(begin + timedelta(days=days) if begin else None)
        except (ValueError, OverflowError):
            faults[name] = "filter.bad_day"
            ends.append(None)
    since, until = ends
    if since is not None and until is not None and since >= until:
        faults["until"] = "filter.bad_span"
    return since, until
