"""docs/policy.md shows the default policy as it is, names every key, and its examples are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.policy.document import KNOWN_KEYS
from loragate_server.policy.parse import parse_policy

TEXT = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_the_default_policy_is_shown_as_it_ships() -> None:
    assert BLOCKS[0] == EMBEDDED_POLICY.read_text()


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_example_is_a_valid_policy(number: int) -> None:
    assert parse_policy(BLOCKS[number].encode()).digest


def test_there_are_examples_of_both_modes_and_of_both_lists() -> None:
    policies = [parse_policy(block.encode()) for block in BLOCKS]
    assert len(policies) >= 3
    assert {one.mode for one in policies} == {"ENFORCE", "PILOT"}
    assert any(one.allow and one.deny and one.rules for one in policies)


def test_every_key_is_named() -> None:
    missing = [key for key in KNOWN_KEYS if not re.search(rf"\b{key}\b", TEXT)]
    assert not missing
