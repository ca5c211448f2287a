"""Which alerts fire under healthy load? None should: `python -m benchmarks.alerts --minutes 10`.

Two Prometheus watch one real server: one with the rules as they are shipped, one with all times
divided by 100, so that ten minutes are most of a day to it.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.report import write
from loragate_server.testing import server_process
from testkit.load import healthy_load
from testkit.monitoring import Prometheus, missing_programs, prometheus
from testkit.scaling import RULES, scale_rules
from testkit.waiting import eventually

FACTOR = 100
PER_S = 5.0
SCRAPE_S = 1.0
"""Between two looks of the faster Prometheus."""
QUESTIONS = {
    "decisions": "sum(loragate_decisions_total)",
    "of these cached": 'sum(loragate_cache_requests_total{result="hit"})',
    "refusals of broken files": 'sum(loragate_refusals_total{reason="FILE_TRUNCATED"})',
    "digests asked before their file was sent": (
        'sum(loragate_refusals_total{reason="ADAPTER_NOT_STORED"})'
    ),
    "other refusals": ('sum(loragate_refusals_total{reason!~"FILE_TRUNCATED|ADAPTER_NOT_STORED"})'),
    "p95 of audits in s": (
        "histogram_quantile(0.95, sum by (le) (rate(loragate_audit_seconds_bucket[10m])))"
    ),
    "deepest queue": "max_over_time(loragate_queue_depth[10m])",
}


def main(
    minutes: Annotated[float, typer.Option(help="How long the load lasts.")] = 10.0,
) -> None:
    """Measures, and writes benchmarks/results/alerts.md."""
    if missing := missing_programs():
        raise typer.BadParameter(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (state := folder / "server").mkdir()
        server = stack.enter_context(server_process(state))
        shipped = sorted(RULES.glob("*.yaml"))
        shorter = [folder / file.name for file in shipped]
        for file, scaled in zip(shipped, shorter, strict=True):
            scaled.write_text(scale_rules(file.read_text(), FACTOR))
        watchers = {
            "as shipped, scraped every 5 s": _watch(stack, folder / "slow", shipped, "5s"),
            f"all times divided by {FACTOR}, scraped every second": _watch(
                stack, folder / "fast", shorter, f"{SCRAPE_S:g}s"
            ),
        }
        for watcher in watchers.values():
            watcher.scrape({"loragate": [server.http]})
        # Until a server is there, the alert about none is right; it has to go first.
        if not all(eventually(partial(_calm, one), 30) for one in watchers.values()):
            raise RuntimeError("an alert is there before anything was asked")
        began_s = time.time()
        with healthy_load(server.grpc, PER_S) as load:
            time.sleep(minutes * 60)
        fired = {how: _alerts(one, began_s) for how, one in watchers.items()}
        # The last answers are in no scrape yet.
        time.sleep(2 * SCRAPE_S)
        [*_, fast] = watchers.values()
        figures = {name: _number(fast, query) for name, query in QUESTIONS.items()}
    _report(minutes, fired, figures, dict(load.answers))


def _watch(stack: ExitStack, folder: Path, rules: Sequence[Path], interval: str) -> Prometheus:
    return stack.enter_context(prometheus(folder, rules, interval=interval))


def _calm(watcher: Prometheus) -> bool:
    return bool(watcher.query("loragate_build_info")) and not watcher.query("ALERTS")


def _alerts(watcher: Prometheus, began_s: float) -> dict[str, list[str]]:
    """The alerts that fired, and those that were pending, at any second."""
    found = watcher.range("ALERTS", began_s, 1.0)
    return {
        state: sorted(
            {one["metric"]["alertname"] for one in found if one["metric"]["alertstate"] == state}
        )
        for state in ("firing", "pending")
    }


def _number(watcher: Prometheus, query: str) -> float:
    return float(watcher.query(query)[0]["value"][1])


def _version() -> str:
    """Of Prometheus, as it says it."""
    said = subprocess.run(["prometheus", "--version"], capture_output=True, text=True, check=True)
    return (said.stdout or said.stderr).splitlines()[0]


def _report(
    minutes: float,
    fired: dict[str, dict[str, list[str]]],
    figures: dict[str, float],
    answers: dict[str, int],
) -> None:
    lines = [
        "# Alerts under healthy load",
        "",
        f"A real server, {minutes:g} minutes, {PER_S:g} questions a second: known adapters, one in",
        "ten at a new strength, one in twenty a broken file.",
        "",
        "| rules | fired | pending |",
        "|---|---|---|",
    ]
    for how, states in fired.items():
        names = [", ".join(states[state]) or "none" for state in ("firing", "pending")]
        lines.append(f"| {how} | {names[0]} | {names[1]} |")
    lines += ["", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4g} |" for name, value in figures.items()]
    lines += [f"| answered {name} | {count} |" for name, count in sorted(answers.items())]
    lines += ["", _version()]
    result: dict[str, object] = {
        "minutes": minutes,
        "fired": fired,
        "figures": figures,
        "answers": answers,
    }
    write("alerts", result, "\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
