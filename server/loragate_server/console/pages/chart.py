"""The chart of the trade-off: where its parts stand, so that the template only draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loragate_server.console.pages.pilot_figures import Setting
from loragate_server.wording.wording import Wording

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 600, 36, 240
_STEPS = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper ends of the axis of shares; the first one that holds every interval is taken."""

_LINES = 5


@dataclass(frozen=True)
class Point:
    """One setting: its place, the ends of its interval, and its words."""

    x: float
    y: float
    low_y: float
    high_y: float
    setting: str
    share: str
    in_force: bool


@dataclass(frozen=True)
class Tick:
    """A line across the chart, and the number beside it."""

    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Everything in units of the view box, whose origin is at the top left."""

    points: tuple[Point, ...]
    line: str
    ticks: tuple[Tick, ...]
    text: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def chart(wording: Wording, settings: Sequence[Setting]) -> Chart:
    """Blocked share by block_p_value, the latter on a logarithmic scale.

    Args:
        wording: of the language.
        settings: at least one, by rising block_p_value.
    """
    top = next(step for step in _STEPS if step >= max(one.blocked.high for one in settings))
    places = _places([one.p_value for one in settings])
    points = tuple(
        Point(
            x=x,
            y=_height(one.blocked.value, top),
            low_y=_height(one.blocked.low, top),
            high_y=_height(one.blocked.high, top),
            setting=wording.p_value(one.p_value),
            share=wording.percent(one.blocked.value),
            in_force=one.in_force,
        )
        for x, one in zip(places, settings, strict=True)
    )
    ticks = tuple(
        Tick(_height(top * part / _LINES, top), f"{wording.short(100 * top * part / _LINES)} %")
        for part in range(_LINES + 1)
    )
    line = " ".join(f"{one.x:g},{one.y:g}" for one in points)
    text = wording("pilot.chart_text", points=_in_words(wording, points))
    return Chart(points, line, ticks, text)


def _in_words(wording: Wording, points: Sequence[Point]) -> str:
    first, *others = points
    words = wording("pilot.point", setting=first.setting, share=first.share)
    for one in others:
        words = wording("pilot.points", first=words, setting=one.setting, share=one.share)
    return words


def _places(settings: Sequence[float]) -> list[float]:
    """Places from left to right by the logarithm; zero, which has none, stands at the left end."""
    logs = [math.log10(one) for one in settings if one > 0]
    low, high = min(logs, default=0.0), max(logs, default=1.0)
    inner_left, inner_right = LEFT + 40, RIGHT - 40
    scale = (inner_right - inner_left) / ((high - low) or 1.0)
    return [
        round(inner_left + (math.log10(one) - low) * scale, 1) if one > 0 else float(LEFT)
        for one in settings
    ]


def _height(share: float, top: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * share / top, 1)
