"""The pictures of the trends: matplotlib draws them, as SVG that browsers show as an image.

They hold numbers and days alone. Words stand in the page, where they are in the reader's language
and grow with its letters; the tables of the page say the same as the pictures.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from loragate_server.console.pages.trend_figures import Trends

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["verdicts", "concepts", "waits"]
KINDS: Final[tuple[Kind, ...]] = ("verdicts", "concepts", "waits")
SCHEMES: Final = ("light", "dark")
SIZES: Final = {"wide": (9.0, 3.2), "narrow": (4.2, 3.2)}
"""In inches of 72 points; the narrow one is for windows of up to 640 pixels."""

_INK = {"light": "#1b1f24", "dark": "#e8eaed"}
_LINE = {"light": "#d5dae0", "dark": "#3a4149"}
_VERDICTS = {
    "light": ("#2c9c63", "#d99a2b", "#6a70d6", "#c2332c"),
    "dark": ("#6fd39c", "#f0b95a", "#aab0ff", "#ff8d85"),
}
_CONCEPTS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a939c"
)  # fmt: skip
"""Colours that people with any kind of colour blindness can tell apart (Okabe and Ito)."""

# Dots would be circles, each of its own many points.
_HATCHES = ("", "///", "+++", "xxx", "\\\\\\", "|||", "---")
_MOST_TICKS = {"wide": 8, "narrow": 4}
_HOUR_S = 3600.0
_drawing = threading.Lock()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """How a picture is to look: colours for a light or a dark page, and its size."""

    scheme: str = "light"
    size: str = "wide"


def can_draw() -> bool:
    """Whether matplotlib can be used; the first call may take a second."""
    try:
        import matplotlib.backends.backend_svg
        import matplotlib.figure  # noqa: F401
    except (ImportError, OSError) as error:
        _log.info("the console shows tables without pictures: %s", error)
        return False
    return True


def swatches(kind: Kind, scheme: str) -> tuple[str, ...]:
    """The colours of the series of a kind, in their order."""
    return _VERDICTS[scheme] if kind == "verdicts" else _CONCEPTS


def draw(kind: Kind, trends: Trends, look: Look) -> bytes:
    """A picture as SVG, the same bytes for the same figures. Blocks for a part of a second.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    ink, line = _INK[look.scheme], _LINE[look.scheme]
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "loragate",
        "font.family": "sans-serif",
        "font.size": 10,
        "hatch.linewidth": 0.6,
        "axes.facecolor": "none",
        **dict.fromkeys(("text.color", "xtick.labelcolor", "ytick.labelcolor"), ink),
        **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), line),
    }
    # The settings of matplotlib are those of the process.
    with _drawing, mpl.rc_context(settings):
        figure = Figure(figsize=SIZES[look.size], layout="constrained", facecolor="none")
        axes = figure.subplots()
        _frame(axes, trends.days, _MOST_TICKS[look.size])
        if kind == "waits":
            _draw_waits(axes, trends, ink)
        else:
            series = trends.verdicts if kind == "verdicts" else trends.concepts
            _draw_bars(axes, [one.counts for one in series], swatches(kind, look.scheme), ink)
        written = io.BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def _draw_bars(
    axes: Axes, series: Sequence[Sequence[int]], colours: Sequence[str], ink: str
) -> None:
    """Bars upon each other, one a day; patterns tell them apart without colours."""
    from matplotlib.ticker import MaxNLocator

    below = [0] * len(series[0]) if series else []
    for counts, colour, hatch in zip(series, colours, _HATCHES, strict=False):
        above = [low + count for low, count in zip(below, counts, strict=True)]
        # All bars of a series are one outline, without any height between them: a year of them
        # makes a small file.
        axes.fill_between(
            [place + side for place in range(len(counts)) for side in (-0.4, -0.4, 0.4, 0.4)],
            [low for low in below for _ in range(4)],
            [
                end
                for low, high in zip(below, above, strict=True)
                for end in (low, high, high, low)
            ],
            facecolor=colour, edgecolor=ink, linewidth=0, hatch=hatch,
        )  # fmt: skip
        below = above
    axes.set_ylim(0, max(1.0, 1.08 * max(below, default=0)))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def _draw_waits(axes: Axes, trends: Trends, ink: str) -> None:
    """A point for the median of a day, and a line up to the longest; hours."""
    found = [(place, one) for place, one in enumerate(trends.waited) if one is not None]
    places = [place for place, _ in found]
    medians = [one.median_s / _HOUR_S for _, one in found]
    longest = [one.longest_s / _HOUR_S for _, one in found]
    axes.vlines(places, medians, longest, color=ink, linewidth=1)
    axes.plot(places, longest, "_", color=ink, markersize=8)
    axes.plot(places, medians, "o", color=_CONCEPTS[0], markersize=6, markeredgecolor=ink)
    axes.set_ylim(0, max(1.0, 1.08 * max(longest, default=0)))


def _frame(axes: Axes, days: Sequence[date], most_ticks: int) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", pad=8)
    axes.set_xlim(-0.6, len(days) - 0.4)
    step = -(-len(days) // most_ticks)
    places = range(0, len(days), step)
    axes.set_xticks(list(places), [_label(days[place], len(days)) for place in places])


def _label(day: date, count: int) -> str:
    """Days are told apart by month and day, over a long time by year and month as well."""
    return f"{day:%m-%d}" if count * timedelta(days=1) < timedelta(days=300) else f"{day:%Y-%m-%d}"
