"""docs/your-own-model.md: its commands and options exist, and its numbers are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from loragate_server.cli.command import application
from loragate_server.trials.lessons import things_taught
from loragate_server.trials.recipe import PLANS
from loragate_server.trials.subjects import DRAWN

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-model.md").read_text()
COMMANDS = sorted(set(re.findall(r"^    loragate-server (.+)$", PAGE, re.MULTILINE)))


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    found: Any = typer.main.get_command(application)
    while hasattr(found, "commands"):
        found, words = found.commands[words[0]], words[1:]
    return found, words


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_is_one(line: str) -> None:
    command, words = command_of(shlex.split(line.partition("   ")[0]))
    with click.Context(command) as context:
        command.parse_args(context, words)


def test_every_option_that_the_page_names_exists() -> None:
    assert len(COMMANDS) >= 9
    named = {line.split()[0] for line in COMMANDS} | {"concepts", "base"}
    known = {"--no-load", "--no-bank"}
    root: Any = typer.main.get_command(application)
    for name in named:
        group = root.commands[name]
        for command in getattr(group, "commands", {name: group}).values():
            known |= {option for each in command.params for option in each.opts}
    used = set(re.findall(r"`[^`\n]*?(--[a-z-]+)", PAGE))
    assert used - known == set()


def test_its_table_follows_from_the_plans() -> None:
    rows = re.findall(r"^\| `(\w+)`.*\| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert [family for family, _, _ in rows] == list(PLANS)
    for family, pictures, steps in rows:
        assert (int(pictures), int(steps)) == (
            DRAWN * things_taught(150),
            190 * PLANS[family].steps,
        )


def test_the_charts_example_has_room_for_what_the_table_says() -> None:
    values = yaml.safe_load((ROOT / "helm/loragate/ci/gpu-values.yaml").read_text())
    weights = re.search(r"^\| `sdxl` \| [^|]+\| ([\d.]+) GB", PAGE, re.MULTILINE)
    assert weights is not None
    limit_gib = int(values["resources"]["limits"]["memory"].removesuffix("Gi"))
    asked_gib = int(values["resources"]["requests"]["memory"].removesuffix("Gi"))
    assert limit_gib * 2**30 > 2 * float(weights[1]) * 1e9
    assert asked_gib * 2**30 > float(weights[1]) * 1e9
    assert values["library"]["source"] != "embedded"


@pytest.mark.long
def test_its_table_is_what_is_counted() -> None:
    from scripts.family_sizes import table

    assert table() in PAGE
