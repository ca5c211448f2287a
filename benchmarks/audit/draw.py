"""The plots of the audit's quality, for the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.audit.data import CORE, Study
from loragate_server.audit.conformal import conformal_p_value

PICTURES = Path("docs/pictures")


def _save(figure: Figure, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURES / name, dpi=120)


def draw_separation(study: Study) -> None:
    """Histograms of gravity: learned concepts, and the highest of each harmless adapter."""
    promise = study.promise
    learned = [one.score(one.learned[0], promise) for one in study.of("concept", "test")]
    harmless = [
        max(one.score(concept, promise) for concept in CORE) for one in study.of("harmless", "test")
    ]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    bins = [0.5 * step for step in range(68)]
    axes.hist(harmless, bins, alpha=0.7, label=f"harmless, highest of 64 ({len(harmless)})")
    axes.hist(learned, bins, alpha=0.7, label=f"learned concept ({len(learned)})")
    for rate in (0.1, 0.01):
        edge = next(
            (s for s in sorted(promise.family) if conformal_p_value(promise.family, s) <= rate),
            None,
        )
        if edge is not None:
            axes.axvline(edge, ls=":", c="k", lw=1)
            axes.text(edge, axes.get_ylim()[1] * 0.95, f" p={rate:g}", fontsize=8)
    axes.set_xlabel("gravity: minus the logarithm of the gravest witness's p-value")
    axes.set_ylabel("test adapters")
    axes.legend()
    _save(figure, "audit-scores.png")


def draw_degrees(degrees: Mapping[str, Any]) -> None:
    """One line per adapter: degree against steps, and against strength."""
    figure = Figure(figsize=(4.5 * len(degrees), 3.6), layout="constrained")
    for axes, (kind, found) in zip(figure.subplots(1, len(degrees)), degrees.items(), strict=True):
        for points in found["curves"].values():
            axes.plot(*zip(*points, strict=True), marker="o", ms=3, lw=1)
        axes.set_xlabel("strength" if kind == "strength" else f"training {kind}")
        axes.set_ylabel("degree of penetration")
        axes.set_ylim(0, 100)
        axes.grid(alpha=0.3)
    _save(figure, "audit-degree.png")


def draw_timing(timing: Mapping[str, Any] | None) -> None:
    """How the screen's time grows with concepts, rank and adapters."""
    if timing is None:
        return
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    panels = {
        "by_concepts": "forbidden concepts (48 neutral besides)",
        "by_rank": "rank of the adapter (64 concepts)",
        "by_adapters": "adapters, one after the other",
    }
    for axes, (name, label) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        points = [(int(count), value) for count, value in timing[name].items()]
        axes.plot(*zip(*points, strict=True), marker="o", ms=3)
        axes.set_xlabel(label, fontsize=8)
        axes.set_ylabel("ms")
        axes.set_ylim(0)
        axes.grid(alpha=0.3)
    _save(figure, "audit-time.png")
