"""Results: every run is appended to one JSON file, so that old and new can be compared."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.kernels.targets import Outcome, table

RESULTS = Path(__file__).parent.parent / "results" / "kernels.json"


@dataclass(frozen=True)
class Row:
    """One provider on one case.

    Attributes:
        op, provider, case, dtype: what was timed.
        how: "graph" (device time, inputs not in the cache) or "wall" (the whole call).
        median_us, p20_us, p80_us, samples: times of one call.
        useful_bytes: every operand read once.
        traffic_bytes: what the provider's operations read and write, operand by operand.
        gbps: useful bytes over the median; None where that would exceed the datasheet.
        of_ceiling: that, relative to the read-only sum of the same run; None without one.
    """

    op: str
    provider: str
    case: str
    dtype: str
    how: str
    median_us: float
    p20_us: float
    p80_us: float
    samples: int
    useful_bytes: int
    traffic_bytes: int
    gbps: float | None
    of_ceiling: float | None


@dataclass(frozen=True)
class Check:
    """Something that holds or does not; None where it was not run."""

    name: str
    holds: bool | None
    detail: str


@dataclass
class Run:
    """Everything that one run measured.

    Attributes:
        mode: "gpu", "cpu" or "rehearsal"; a rehearsal's numbers mean nothing.
        facts: device, versions, clocks, time.
        ceilings: GB/s by name.
        rows, outcomes, checks: see there.
        notes: what went wrong or was left out.
    """

    mode: str
    facts: dict[str, str]
    ceilings: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, provider: str, case: str, how: str) -> Row | None:
        """The row of that provider, if it was timed."""
        for row in self.rows:
            if (row.provider, row.case, row.how) == (provider, case, how):
                return row
        return None


def to_json(run: Run) -> dict[str, Any]:
    """The run as JSON has it."""
    return asdict(run)


def from_json(content: dict[str, Any]) -> Run:
    """The run that `to_json` made `content` of."""
    return Run(
        content["mode"],
        content["facts"],
        content["ceilings"],
        [Row(**row) for row in content["rows"]],
        [Outcome(**outcome) for outcome in content["outcomes"]],
        [Check(**check) for check in content["checks"]],
        content["notes"],
    )


def load(path: Path = RESULTS) -> list[Run]:
    """All runs, oldest first."""
    if not path.exists():
        return []
    return [from_json(run) for run in json.loads(path.read_text())["runs"]]


def save(run: Run, path: Path = RESULTS) -> None:
    """Appends the run, or replaces what was saved of it before: runs begin at different times."""
    began = run.facts["measured_at"]
    kept = [one for one in load(path) if one.facts["measured_at"] != began]
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = [to_json(one) for one in (*kept, run)]
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    temporary.replace(path)


def newest(runs: list[Run]) -> list[Run]:
    """The newest run of every mode and device."""
    return list({(run.mode, run.facts["device"]): run for run in runs}.values())


def render(run: Run) -> str:
    """The run in Markdown."""
    facts = ", ".join(f"{key} {value}" for key, value in run.facts.items())
    parts = [f"### {run.facts['device']} ({run.mode})", facts + "."]
    if run.mode == "rehearsal":
        parts.append("A rehearsal: the numbers mean nothing.")
    if run.ceilings:
        ceilings = ", ".join(f"{name} {value:.0f} GB/s" for name, value in run.ceilings.items())
        parts.append(f"Ceilings, measured in the same run: {ceilings}.")
    if run.rows:
        parts.append(_rows_table(run.rows))
    if run.mode != "cpu":
        parts.append(table(run.outcomes))
    if run.checks:
        words = {True: "holds", False: "**fails**", None: "not run"}
        lines = [f"| {one.name} | {words[one.holds]} | {one.detail} |" for one in run.checks]
        parts.append("\n".join(["| check | | |", "|---|---|---|", *lines]))
    parts += [f"- {note}" for note in run.notes]
    return "\n\n".join(parts) + "\n"


def _rows_table(rows: list[Row]) -> str:
    lines = [
        "| op | case | dtype | provider | time | spread | how | GB/s | of ceiling | bytes moved |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = (row.p80_us - row.p20_us) / row.median_us
        cells = (
            row.op,
            row.case,
            row.dtype,
            row.provider,
            _time(row.median_us),
            f"{spread:.0%}",
            row.how,
            "–" if row.gbps is None else f"{row.gbps:.4g}",
            "–" if row.of_ceiling is None else f"{row.of_ceiling:.0%}",
            f"{row.traffic_bytes / 1e6:.0f} MB",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _time(microseconds: float) -> str:
    return f"{microseconds:.1f} µs" if microseconds < 1e4 else f"{microseconds / 1e3:.1f} ms"
