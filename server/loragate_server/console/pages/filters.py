"""The filters of the list of verdicts: as they were typed, and what they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from loragate_server.policy.decision import VerdictKind
from loragate_server.record.search import Search
from loragate_server.severity import SEVERITIES

FIELDS = (
    "verdict",
    "adapter",
    "concept",
    "severity",
    "degree",
    "reviewer",
    "service",
    "tenant",
    "base_model",
    "since",
    "until",
)
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


def read_filters(query: Mapping[str, str]) -> Filters:
    """The filters in a query. Unknown fields are not looked at."""
    typed = {name: query.get(name, "").strip()[:_LONGEST] for name in FIELDS}
    faults: dict[str, str] = {}
    digits = typed["adapter"].lower()
    if typed["verdict"] and typed["verdict"] not in list(VerdictKind):
        faults["verdict"] = "filter.bad_verdict"
    if digits and not _DIGITS.fullmatch(digits):
        faults["adapter"] = "filter.bad_adapter"
    if typed["severity"] and typed["severity"] not in SEVERITIES:
        faults["severity"] = "filter.bad_severity"
    degree = _degree(typed["degree"], faults)
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
        concept_id=typed["concept"],
        severities=_at_least(typed["severity"]),
        least_degree=degree,
        reviewer=typed["reviewer"],
    )
    return Filters(typed, search, faults)


def _at_least(severity: str) -> tuple[str, ...]:
    return SEVERITIES[SEVERITIES.index(severity) :] if severity else ()


def _degree(text: str, faults: dict[str, str]) -> float | None:
    """A degree of 0 to 100, with a point or a comma; None for none."""
    if not text:
        return None
    try:
        degree = float(text.replace(",", "."))
    except ValueError:
        degree = math.nan
    if not 0 <= degree <= 100:
        faults["degree"] = "filter.bad_degree"
        return None
    return degree


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
