"""The whole way from a base model to error rates, by real commands; and the benchmark agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scripts.own_model import BENCHMARK, application, disagreements
from testkit.tiny_models import tiny_pipeline


def walk(*words: object) -> None:
    done = CliRunner().invoke(application, [str(word) for word in words])
    assert done.exit_code == 0, done.output


def rates(learned: tuple[float, float], harmless: tuple[float, float]) -> dict[str, Any]:
    def rate(bounds: tuple[float, float]) -> dict[str, float]:
        return dict(zip(("low", "high"), bounds, strict=True))

    return {
        "found": {"blocked": rate(learned)},
        "false_blocks": rate(harmless),
        "promise_holds": True,
    }


@pytest.mark.parametrize(
    ("learned", "harmless", "wrong"),
    [
        ((0.9, 1.0), (0.0, 0.06), []),
        ((0.2, 0.6), (0.0, 0.06), ["learned a concept, blocked: 20.0% to 60.0% here"]),
        ((0.9, 1.0), (0.1, 0.3), ["harmless, blocked: 10.0% to 30.0% here"]),
    ],
)
def test_rates_that_the_benchmark_does_not_know_are_told(
    learned: tuple[float, float], harmless: tuple[float, float], wrong: list[str]
) -> None:
    found = list(disagreements(rates(learned, harmless), BENCHMARK.read_text()))
    assert len(found) == len(wrong)
    assert all(line.startswith(begin) for line, begin in zip(found, wrong, strict=True)), found


def test_a_benchmark_that_says_something_else_is_told() -> None:
    [line] = disagreements(rates((0, 1), (0, 1)), "| nothing |")
    assert line.endswith("does not say what it said")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_whole_way_is_walked_on_the_embedded_base_model(tmp_path: Path) -> None:
    walk("path", tmp_path / "own")
    facts = json.loads((tmp_path / "own" / "evaluation" / "evaluation.json").read_text())
    assert (facts["found"]["blocked"]["of"], facts["false_blocks"]["of"]) == (3, 6)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_whole_way_is_walked_on_a_base_model_of_the_shape_of_sdxl(tmp_path: Path) -> None:
    tiny_pipeline("sdxl").save_pretrained(tmp_path / "sdxl")
    walk("path", tmp_path / "own", "--base", tmp_path / "sdxl")
    assert (tmp_path / "own" / "evaluation" / "evaluation.ja.html").exists()


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_the_rates_of_the_embedded_calibration_are_those_of_the_benchmark(tmp_path: Path) -> None:
    walk("agreement", tmp_path)
