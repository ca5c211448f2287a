"""Runs benchmarks by name: `python -m benchmarks.run [NAME]...`; without names, all of them.

Each writes its figures, with machine and versions, to `benchmarks/results/`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from types import MappingProxyType
from typing import Annotated

import typer

BENCHMARKS = MappingProxyType(
    {
        "alerts": "Which alerts fire in ten minutes of healthy load? None should. 11 minutes.",
        "audit": "Error rates on 765 adapters beside the alternatives. Trains them: 4 hours.",
        "parity": "Do our deltas change the outputs as diffusers' own loading does? 2 minutes.",
        "interception": "What asking adds to a request without an adapter, per proxy. 1 minute.",
        "catalogue": "20,000 files as one job whose driver is killed twice. Hours on two cores.",
        "resilience": "Stops, crashes and replicas under load: what callers get. 6 minutes.",
        "attacks.service": "Idle peers, drips and crowds against a server. 6 minutes.",
        "resilience.overload": "Files at one to ten times what can be answered. 5 minutes.",
        "resilience.soak": "Memory and open files over 50,000 audits. An hour or two.",
        "service": "Latency of fresh and cached audits, memory over 200 audits. 10 minutes.",
    }
)


def run(
    names: Annotated[
        list[str] | None, typer.Argument(help="Some of: " + ", ".join(BENCHMARKS))
    ] = None,
) -> None:
    """Runs benchmarks, one after the other, each in a process of its own."""
    chosen = names or list(BENCHMARKS)
    for name in chosen:
        if name not in BENCHMARKS:
            raise typer.BadParameter(f"there is no benchmark {name}; there are {list(BENCHMARKS)}")
    for name in chosen:
        typer.secho(f"{name}: {BENCHMARKS[name]}", bold=True)
        began = time.monotonic()
        if name == "audit":
            for step in ("train", "measure", "ranks", "timing", "alternatives"):
                _python(f"benchmarks.audit.{step}")
            name = "audit.report"
        _python(f"benchmarks.{name}")
        typer.echo(f"{name} took {time.monotonic() - began:.0f} s\n")


def _python(*module: str) -> None:
    subprocess.run([sys.executable, "-m", *module], check=True)


if __name__ == "__main__":
    typer.run(run)
