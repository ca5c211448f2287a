"""A long start is seen to go on."""

from __future__ import annotations

import logging

import pytest

from loragate_server.app.loading import SAY_EVERY_S, Pace, progress_lines


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
        "probes of sd, 25 %, about 30 s left",
        "probes of sd, 50 %, about 20 s left",
        "probes of sd, 75 %, about 10 s left",
    ]


@pytest.mark.parametrize(
    ("done_s", "words"),
    [(1, ", about 9 s left"), (60, ", about 9 min left"), (3600, ", about 9.0 h left")],
)
def test_what_is_left_is_told_from_what_this_process_did(done_s: float, words: str) -> None:
    """Half was there before it began, and tells nothing of its pace."""
    now_s = 0.0
    pace = Pace(lambda: now_s)
    assert pace.left("gradients of sd", 0.5) == ""
    now_s = done_s
    assert pace.left("gradients of sd", 0.55) == words
    assert pace.left("gradients of sd", 1.0) == ""
    assert pace.left("gradients of other", 0.0) == "", "another stage has another pace"
