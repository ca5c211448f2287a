"""A report on a large library says how many concepts it does not list."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loragate_server.policy.decision import VerdictKind
from loragate_server.policy.shortened import shortened
from loragate_server.record.verdict import Verdict
from loragate_server.report.render import render
from testkit import evidence as made


def verdict(count: int) -> Verdict:
    concepts = [
        made.concept(place / 10, concept_id=f"c{place:03}", concept_name=f"Concept {place:03}")
        for place in range(count)
    ]
    kept = made.decision(VerdictKind.ALLOW, made.evidence(*concepts))
    falling = replace(kept, findings=tuple(reversed(kept.findings)))
    return made.verdict(shortened(falling, 20, 1000.0))


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "980 further concepts were measured and let through. The highest score among them"),
        ("ja", "このほか980件のコンセプトを測定し"),
    ],
)
def test_what_is_not_listed_is_counted(language: str, words: str) -> None:
    page = render(verdict(1000), language)
    assert words in page
    assert "97.9" in page, "the highest score that is left out"
    assert "Concept 980" in page
    assert "Concept 979" not in page


def test_the_headline_and_the_limits_count_all_concepts() -> None:
    page = render(verdict(1000), "en")
    assert "1000" in page or "1,000" in page


def test_a_report_on_a_small_library_says_nothing_of_it() -> None:
    assert "further concepts" not in render(verdict(20), "en")
