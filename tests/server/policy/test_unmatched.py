"""A rule that speaks about no concept of the library is told, and not refused."""

from __future__ import annotations

import pytest

from loragate_server.concepts.concept import Concept
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.unmatched import unmatched

LIBRARY = (
    Concept("logo", "Logo", "brand", "medium", "forbidden"),
    Concept("mascot", "Mascot", "character", "high", "forbidden"),
)


def told(criteria: str) -> tuple[str, ...]:
    default = EMBEDDED_POLICY.read_text()
    head = default.partition("\nrules:\n")[0]
    rule = f"\nrules:\n  - name: y\n    review_p_value: 0.1\n    {criteria}\n"
    return unmatched(parse_policy((head + rule).encode()), LIBRARY)


@pytest.mark.parametrize(
    "criteria",
    [
        "categories: [brand]",
        "concepts: [logo, mascot]",
        "severities: [high]",
        "categories: [character]\n    severities: [high]",
    ],
)
def test_a_rule_about_concepts_of_the_library_is_not_mentioned(criteria: str) -> None:
    assert told(criteria) == ()


def test_a_misspelt_category_is_told_with_those_there_are() -> None:
    [line] = told("categories: [likenes, brand]")
    assert line == (
        "rule y: no forbidden concept of the library has category 'likenes'; "
        "there are brand, character"
    )


def test_a_misspelt_concept_and_an_unused_severity_are_told() -> None:
    lines = told("concepts: [logoo]\n    severities: [critical]")
    assert [line.partition("; ")[0] for line in lines] == [
        "rule y: no forbidden concept of the library has id 'logoo'",
        "rule y: no forbidden concept of the library has severity 'critical'",
    ]


def test_criteria_that_hold_of_no_concept_together_are_told() -> None:
    [line] = told("categories: [brand]\n    severities: [high]")
    assert "have to hold of one concept together" in line
