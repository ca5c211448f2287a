"""Lengths of time in words."""

from __future__ import annotations

from loragate_server.wording.wording import Wording

_HOUR_S, _MINUTE_S = 3600.0, 60.0


def duration(wording: Wording, seconds: float) -> str:
    """A time in the unit that people would use for it."""
    if seconds < _HOUR_S:
        return wording("duration.minutes", count=round(seconds / _MINUTE_S))
    if seconds < 48 * _HOUR_S:
        return wording("duration.hours", hours=wording.decimal(seconds / _HOUR_S))
    return wording("duration.days", days=wording.decimal(seconds / (24 * _HOUR_S)))
