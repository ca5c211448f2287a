"""How far long commands are, where there is no terminal to draw bars on."""

from __future__ import annotations

import pytest

from loragate_server.cli.progress import SAY_EVERY_S, Lines


def test_lines_say_now_and_then_how_long_it_may_take_still(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now_s = 0.0
    lines = Lines(lambda: now_s)
    for second in range(0, 301, 10):
        now_s = float(second)
        lines("training", second / 600)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 300 / SAY_EVERY_S
    assert said[0] == "training: 5%, 10 min left"
    assert said[-1] == "training: 50%, 5 min left"


def test_what_ends_soon_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    now_s = 0.0
    lines = Lines(lambda: now_s)
    for stage in ("one", "two", "three"):
        lines(stage, 0.0)
        now_s += SAY_EVERY_S - 1
        lines(stage, 1.0)
    assert capsys.readouterr().err == ""
