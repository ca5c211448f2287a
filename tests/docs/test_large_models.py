"""docs/large-models.md: its configuration is valid, and its messages are those that people see."""

from __future__ import annotations

import re
from pathlib import Path

import loragate_server
from loragate_server.config.sources import load_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "large-models.md").read_text(encoding="utf-8")
SOURCES = Path(loragate_server.__file__).parent
MEASURED = (ROOT / "benchmarks" / "results" / "scale.md").read_text(encoding="utf-8")


def test_the_example_is_a_valid_configuration(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (file := tmp_path / "loragate.yaml").write_text(example)
    config = load_config(file)
    assert config.base_models[0].device == "cuda:0"
    assert config.gradients.kind == "auto"


def test_every_message_is_one_of_the_server() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", PAGE.split("## When it does not work")[1], re.MULTILINE)
    assert len(rows) == 4
    said = " ".join(file.read_text(encoding="utf-8") for file in SOURCES.rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", said)
    for row in rows:
        for part in (each.strip() for each in row.split("...")):
            assert part in code, part


def test_its_figures_are_those_of_the_results() -> None:
    rows = re.findall(r"^\| (S.*|F.*) \|$", PAGE.split("## Building")[0], re.MULTILINE)
    assert len(rows) == 5
    for row in rows:
        name, *figures = row.split(" | ")
        [measured] = [line for line in MEASURED.splitlines() if line.startswith(f"| {name} |")]
        assert set(figures) <= set(measured.strip("| ").split(" | "))
