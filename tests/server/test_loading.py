"""A long start is seen to go on."""

from __future__ import annotations

import logging

import pytest

from loragate_server.app.loading import SAY_EVERY_S, progress_lines


def test_a_stage_is_logged_when_it_begins_and_every_ten_seconds_with_its_share(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 0.0
    report = progress_lines(lambda: now_s)
    with caplog.at_level(logging.INFO):
        report("loading sd", 0.0)
        for step in range(31):
            now_s = float(step)
            report("probes of sd", step / 40)
    assert SAY_EVERY_S == 10
    assert caplog.messages == [
        "loading sd",
        "probes of sd",
        "probes of sd, 25 %",
        "probes of sd, 50 %",
        "probes of sd, 75 %",
    ]
