"""Draws results; the only part that needs matplotlib."""

from __future__ import annotations

from pathlib import Path

from benchmarks.kernels.pair_providers import OP
from benchmarks.kernels.record import Row, Run, newest

PICTURES = Path(__file__).parent.parent.parent / "docs" / "pictures"


def draw(runs: list[Run], folder: Path = PICTURES) -> list[Path]:
    """One picture for the newest run of every device that has bandwidths; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for run in newest(runs):
        rows = [row for row in run.rows if row.op == OP and row.gbps is not None]
        if rows and run.mode != "rehearsal":
            path = folder / f"kernels-{_slug(run)}.png"
            _draw(run, rows, path)
            drawn.append(path)
    return drawn


def _slug(run: Run) -> str:
    if run.mode == "cpu":
        return "cpu"
    words = run.facts["device"].lower().removeprefix("nvidia ").split()
    return "-".join("".join(c for c in word if c.isalnum()) for word in words)


def _draw(run: Run, rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")  # no display where this runs
    from matplotlib import pyplot

    cases = list(dict.fromkeys((row.case, row.dtype, row.how) for row in rows))
    figure, axes = pyplot.subplots(
        len(cases), 1, figsize=(8, 0.8 + 1.9 * len(cases)), layout="constrained", squeeze=False
    )
    for axis, case in zip(axes[:, 0], cases, strict=True):
        shown = [row for row in rows if (row.case, row.dtype, row.how) == case][::-1]
        names = [row.provider for row in shown]
        values = [row.gbps or 0.0 for row in shown]
        colours = ["tab:blue" if name.startswith("ours") else "tab:gray" for name in names]
        bars = axis.barh(names, values, color=colours)
        axis.bar_label(bars, [_label(row) for row in shown], padding=3, fontsize=8)
        for line, (name, value) in zip(("-", "--"), run.ceilings.items(), strict=False):
            axis.axvline(value, color="black", linestyle=line, linewidth=0.8, label=name)
        axis.set_xlim(0, 1.3 * max([*values, *run.ceilings.values()]))
        axis.set_title(f"{case[0]}, {case[1]}, {case[2]}", fontsize=9, loc="left")
        axis.tick_params(labelsize=8)
    if run.ceilings:
        axes[0, 0].legend(fontsize=7, loc="lower right")
    axes[-1, 0].set_xlabel("GB/s of operands, each read once")
    when = run.facts["measured_at"][:10]
    figure.suptitle(f"pair_stats on {run.facts['device']}, {when}", fontsize=10)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _label(row: Row) -> str:
    rate = row.gbps or 0.0
    text = f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
    return text if row.of_ceiling is None else f"{text} ({row.of_ceiling:.0%})"
