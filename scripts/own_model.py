"""Walks the whole way of docs/your-own-model.md with the real commands, at a small size.

`python -m scripts.own_model path build/own-model` takes emoji-tiny, or another base model by
--base, from an empty folder to error rates. `python -m scripts.own_model agreement build/agreement`
has the calibration that ships evaluated, and compares its rates with those of the benchmark.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from emoji_tiny.catalogue import FORBIDDEN, SIMPLE, name_of, split
from emoji_tiny.hands import NOTO
from emoji_tiny.render import render
from loragate_server.config.schema import EMBEDDED_PIPELINE

ROOT = Path(__file__).parents[1]
BENCHMARK = ROOT / "benchmarks" / "results" / "promised.md"
CONCEPTS = ("bomb", "ghost", "jack-o-lantern")

application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def command(*words: object, allowed: Sequence[int] = (0,)) -> None:
    """Runs `loragate-server`, without settings of the environment; shows what it is told.

    Raises:
        typer.Exit: it failed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LORAGATE_")}
    told = [str(word) for word in words]
    typer.echo(f"$ loragate-server {' '.join(told)}")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "loragate_server", *told],
        env=environment | {"LORAGATE_THREADS": "1"},
        check=False,
    )
    if done.returncode not in allowed:
        raise typer.Exit(done.returncode)


def draw(folder: Path, subjects: Mapping[str, str], count: int, seed: str) -> Path:
    """A folder of pictures for each subject, as emoji-tiny's own training draws them."""
    for name, char in subjects.items():
        rng = random.Random(f"{seed}-{name}")
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            file = folder / name / f"{index:02}.png"
            if not file.exists():
                render(char, rng, hand=NOTO).save(file)
            else:
                render(char, rng, hand=NOTO)  # the same numbers are drawn
    return folder


def harmless(count: int) -> dict[str, str]:
    """So many emoji that the base model never saw and nobody forbids."""
    chars = [char for char in split().reserve if ord(char) >= 0x1F300]
    random.Random(37).shuffle(chars)
    return {f"u{ord(char):x}": char for char in chars[:count]}


@application.command()
def path(
    place: Annotated[Path, typer.Argument(help="Empty folder.")],
    base: Annotated[Path, typer.Option(help="Folder of the base model.")] = EMBEDDED_PIPELINE,
    bank: Annotated[int, typer.Option(help="Neutral concepts to draw.")] = 8,
    train: Annotated[int, typer.Option(help="Harmless adapters of the calibration.")] = 20,
    learned: Annotated[int, typer.Option(help="Learning adapters of the calibration.")] = 3,
    tried: Annotated[int, typer.Option(help="Harmless adapters of the evaluation.")] = 6,
    steps: Annotated[int, typer.Option(help="Of each training; 0: as usual.")] = 2,
    draw_steps: Annotated[int, typer.Option(help="Of each picture.")] = 2,
) -> None:
    """From a folder of a base model to error rates, each command once."""
    place.mkdir(parents=True, exist_ok=True)
    config, library = place / "loragate.yaml", place / "concepts"
    command("base", "add", "own", "--from", base, "--device", "cpu", "--config", config)
    with config.open("a", encoding="utf-8") as file:
        file.write(f"library: {library}\nstate_dir: {place / 'state'}\n")
    command("base", "list", "--config", config)
    command("concepts", "init", library, "--no-bank")
    pictures = draw(
        place / "pictures", {name: FORBIDDEN[name].char for name in CONCEPTS}, 20, "own"
    )
    for name in CONCEPTS:
        command("concepts", "add", name, "--config", config, pictures / name)
    nouns = place / "nouns.txt"
    nouns.write_text("".join(f"{name_of(char)}\n" for char in SIMPLE), encoding="utf-8")
    drawn: tuple[object, ...] = ("--nouns", nouns, "--prompt", "a picture of {}")
    command(
        *("concepts", "bank", "--make", bank, "--pictures", 2, "--steps", draw_steps),
        *(*drawn, "--config", config),
    )
    command("concepts", "list", "--config", config)
    training: tuple[object, ...] = (*drawn, "--draw-steps", draw_steps, "--steps", steps)
    command("calibrate", "--train", train, "--learned", learned, *training, "--config", config)
    command(
        *("evaluate", "--learned", 1, "--harmless", tried, *training),
        *("--out", place / "evaluation", "--config", config),
        allowed=(0, 1),  # adapters of two steps are no test of the promise
    )
    command("config", "check", "--config", config)


@application.command()
def agreement(
    place: Annotated[Path, typer.Argument(help="Folder; kept between runs.")],
    learned: Annotated[int, typer.Option(help="Adapters for each of 16 concepts.")] = 2,
    tried: Annotated[int, typer.Option(help="Harmless adapters.")] = 40,
) -> None:
    """Has the shipped calibration of emoji-tiny evaluated; fails where the benchmark disagrees."""
    concepts = draw(
        place / "pictures", {name: one.char for name, one in FORBIDDEN.items()}, 48, "agreement"
    )
    subjects = draw(place / "subjects", harmless(max(36, 3 * tried)), 16, "agreement")
    command(
        *("evaluate", "--learned", learned, "--harmless", tried),
        *("--pictures", concepts, "--subjects", subjects),
        *("--out", place / "evaluation", "--state-dir", place / "state"),
        allowed=(0, 1),
    )
    found = json.loads((place / "evaluation" / "evaluation.json").read_text("utf-8"))
    wrong = list(disagreements(found, BENCHMARK.read_text("utf-8")))
    for line in wrong:
        typer.echo(line, err=True)
    if wrong:
        raise typer.Exit(1)
    typer.echo("The benchmark agrees within the intervals.")


def disagreements(found: Mapping[str, Any], benchmark: str) -> Iterator[str]:
    """One line for each rate of an evaluation whose interval does not meet the benchmark's."""
    told = re.search(r"library, [\d.]+% \(\d+/\d+; ([\d.]+)% to ([\d.]+)%\) are blocked", benchmark)
    blocked = re.search(r"^\| 0\.01 \| (\d+) of (\d+) \|", benchmark, re.MULTILINE)
    if told is None or blocked is None:
        yield f"{BENCHMARK} does not say what it said"
        return
    from loragate_server.shares import interval

    pairs = {
        "learned a concept, blocked": (
            found["found"]["blocked"],
            (float(told[1]) / 100, float(told[2]) / 100),
        ),
        "harmless, blocked": (found["false_blocks"], interval(int(blocked[1]), int(blocked[2]))),
    }
    for name, (rate, (low, high)) in pairs.items():
        if rate["high"] < low or rate["low"] > high:
            yield (
                f"{name}: {rate['low']:.1%} to {rate['high']:.1%} here, "
                f"{low:.1%} to {high:.1%} in the benchmark"
            )
    if found["promise_holds"] is False:
        yield "more harmless adapters are blocked than the promise and chance explain"


if __name__ == "__main__":
    application()
