"""Draws what an operator chooses between: false blocks against misses, per concept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loragate_server.audit.calibration import Calibration, CalibrationError
from loragate_server.audit.promise import learned_p_values

SUFFIXES = (".png", ".svg")
"""Of the files that can be drawn."""

_STEPS = 400


def require_drawing() -> None:
    """Raises while nothing can be drawn.

    Raises:
        CalibrationError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise CalibrationError(
            "drawing needs matplotlib; install it with `pip install loragate-server[plot]`"
        ) from error


def draw_rates(made: Calibration, file: Path, miss_rate: float = 0.01) -> None:
    """Writes the curve as .png or .svg: one line for all concepts, one for each concept.

    Raises:
        CalibrationError: there are no learned adapters to miss, or matplotlib is not installed.
    """
    by_concept = learned_p_values(made.at(miss_rate), made.learned)
    if not by_concept:
        raise CalibrationError("without --learned there are no misses to draw")
    require_drawing()
    from matplotlib.figure import Figure

    rates = [10 ** (-4 + 4 * step / _STEPS) for step in range(_STEPS + 1)]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for concept, p_values in sorted(by_concept.items()):
        axes.step(
            rates,
            [sum(p > rate for p in p_values) / len(p_values) for rate in rates],
            lw=0.8,
            alpha=0.5,
            label=f"{concept} ({len(p_values)})",
        )
    every = [p for p_values in by_concept.values() for p in p_values]
    missed = [sum(p > rate for p in every) / len(every) for rate in rates]
    axes.step(rates, missed, "k", lw=2.2, label=f"all ({len(every)})")
    axes.set_xscale("log")
    axes.axvline(1 / (len(made.harmless) + 1), color="grey", ls=":", lw=1)
    axes.text(
        1 / (len(made.harmless) + 1), 1.02, "counted | extrapolated below", ha="center", fontsize=7
    )
    axes.set_xlabel("block_p_value: share of harmless adapters that are blocked")
    axes.set_ylabel("share of learned concepts that are missed")
    axes.set_ylim(-0.02, 1.08)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, ncols=2)
    figure.savefig(file, dpi=130)


def miss_rates(
    made: Calibration, rates: Sequence[float], miss_rate: float = 0.01
) -> dict[float, float] | None:
    """Share of learned concepts that each `block_p_value` would miss; None without any."""
    heard = learned_p_values(made.at(miss_rate), made.learned)
    p_values = [p for every in heard.values() for p in every]
    if not p_values:
        return None
    return {rate: sum(p > rate for p in p_values) / len(p_values) for rate in rates}
