"""What the running server says about its policy and the library in force."""

from __future__ import annotations

import logging

import pytest

from loragate_server.app.folders import open_library
from loragate_server.app.front import warn_of_rules
from loragate_server.config.schema import EMBEDDED_LIBRARY, EMBEDDED_POLICY
from loragate_server.policy.parse import parse_policy


def test_a_policy_in_force_whose_rule_meets_no_concept_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = EMBEDDED_POLICY.read_text().replace("[kind, style]", "[brand]")
    library = open_library(EMBEDDED_LIBRARY)
    with caplog.at_level(logging.WARNING):
        warn_of_rules(parse_policy(text.encode()), library)
        assert not caplog.messages
        wrong = text.replace("[brand]", "[brandd]")
        warn_of_rules(parse_policy(wrong.encode()), library)
    [line] = caplog.messages
    assert line.startswith("policy policy.yaml: rule kinds and styles: ")
    assert "category 'brandd'" in line
