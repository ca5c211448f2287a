"""Fuzzes the extractors of all image servers and counts what was tried.

    .venv/bin/python scripts/fuzz_extractors.py --minutes 10

Takes turns among the servers. To each it sends arbitrary requests, requests that carry a LoRA, and
such with changed bytes; and to each grammar texts, beside a model of the server's own reading. Only
a refusal may be raised; a LoRA that the server would honour has to be found or refused; a rewritten
body may differ in the reference alone. Prints the executions and the failures, each with its
smallest request, and exits with 1 when there is one.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from loragate_server.intercept.registry import EXTRACTORS  # noqa: E402
from tests.server.intercept import (  # noqa: E402
    carriers,
    grammar_texts,
    properties,
    server_models,
    strategies,
)
from tests.server.intercept.bodies import extractor  # noqa: E402

EXAMPLES_PER_TURN = 200
MAX_FAILURES = 20

Check = Callable[[Any], object]


def checks_of(server: str) -> dict[str, tuple[st.SearchStrategy[Any], Check]]:
    """The properties of one server: name to what is sent and how it is checked."""
    made = extractor(server)
    own = st.sampled_from(_paths(server))
    sent = strategies.requests_to(own) | strategies.requests
    found: dict[str, tuple[st.SearchStrategy[Any], Check]] = {
        "answers or refuses": (sent, lambda request: properties.answers_or_refuses(made, request)),
    }
    if server not in carriers.CARRIERS:
        return found
    carrying = carriers.CARRIERS[server]
    found["answers or refuses, changed bytes"] = (
        carriers.mutated(carrying),
        lambda request: properties.answers_or_refuses(made, request),
    )
    found["finds the LoRA"] = (
        carrying,
        lambda carrier: properties.finds_the_lora(made, carrier),
    )
    found["rewrites only the reference"] = (
        carrying,
        lambda carrier: properties.rewrites_only_the_reference(made, carrier),
    )
    if server in server_models.MODELS:
        found["nothing passes unaudited"] = (
            carriers.mutated(carrying) | sent,
            lambda request: server_models.nothing_passes_unaudited(server, made, request),
        )
    return found


def _paths(server: str) -> list[str]:
    """The guarded routes of a server, with a name for every free segment."""
    routes = EXTRACTORS[server].guarded(extractor(server))  # type: ignore[arg-type]
    return ["/" + "/".join(route.pattern).replace("*", "x") for route in routes]


def turn(strategy: st.SearchStrategy[Any], check: Check, number: int) -> tuple[int, int, str]:
    """Executions of one property; how many, how many with an adapter, and what failed."""
    tried = effective = 0

    @seed(number)
    @settings(
        max_examples=EXAMPLES_PER_TURN,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(value: Any) -> None:
        nonlocal tried, effective
        tried += 1
        effective += bool(check(value))

    try:
        run()
    except Exception as error:  # whatever it is, it is what is looked for
        notes = " ".join(getattr(error, "__notes__", ()))
        return tried, effective, f"{type(error).__name__}: {error} {notes}"
    return tried, effective, ""


def fuzz(
    minutes: float, first_seed: int, only: str, console: Console, folder: Path
) -> tuple[Counter[str], Counter[str], list[str]]:
    """Takes turns until the time is over; executions, those with an adapter, and failures."""
    work = [
        (f"{server}: {name}", strategy, check)
        for server in EXTRACTORS
        for name, (strategy, check) in checks_of(server).items()
    ]
    work += [
        (f"grammar of {name}", strategy, check)
        for name, (strategy, check) in grammar_texts.readers(folder).items()
    ]
    work = [one for one in work if only.lower() in one[0].lower()]
    if not work:
        raise typer.BadParameter(f"no property's name holds {only!r}", param_hint="--only")
    executions: Counter[str] = Counter()
    effects: Counter[str] = Counter()
    failures: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    began, number = time.monotonic(), first_seed
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("starting", total=minutes * 60)
        while (passed := time.monotonic() - began) < minutes * 60 and len(failures) < MAX_FAILURES:
            name, strategy, check = work[number % len(work)]
            total = executions.total()
            progress.update(bar, completed=passed, description=f"{total} executions, {name}")
            tried, effective, failure = turn(strategy, check, number)
            executions[name] += tried
            effects[name] += effective
            if failure:
                failures.append(f"{name}, seed {number}: {failure}")
            number += 1
    return executions, effects, failures


def main(
    minutes: Annotated[float, typer.Option(help="How long to fuzz.")] = 10.0,
    first_seed: Annotated[int, typer.Option(help="The seed of the first turn.")] = 0,
    only: Annotated[
        str, typer.Option(help='Properties whose names hold this: "vllm_omni", "grammar of A1111".')
    ] = "",
) -> None:
    """Fuzzes and reports."""
    console = Console(width=max(100, Console().width))
    began = time.monotonic()
    with TemporaryDirectory() as made:
        grammar_texts.lay_out(Path(made))
        executions, effects, failures = fuzz(minutes, first_seed, only, console, Path(made))
    table = Table("property", "executions", "with an adapter")
    for name, count in sorted(executions.items()):
        table.add_row(name, str(count), str(effects[name]))
    console.print(table)
    for failure in failures:
        console.print(failure, markup=False, highlight=False)
    console.print(
        f"{executions.total()} executions in {time.monotonic() - began:.0f} s, "
        f"{len(failures)} failures"
    )
    if failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
