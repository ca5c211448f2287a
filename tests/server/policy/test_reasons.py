"""Every code of a reason is known to metrics, reports and to those who may not see numbers."""

from __future__ import annotations

import ast
import types

import pytest

from loragate_server.metrics.labels import DECISION_REASONS
from loragate_server.policy import review
from loragate_server.policy.reasons import REASON_CODES
from loragate_server.report.wording import REPORT
from tests.server.policy.given_codes import codes_in, codes_of, given_codes


def test_the_codes_that_the_sources_give_are_exactly_the_known_ones() -> None:
    assert given_codes() == set(REASON_CODES)


def test_every_code_has_its_label() -> None:
    assert set(DECISION_REASONS) == {*REASON_CODES, "other"}


def test_every_code_has_its_words_in_every_language() -> None:
    for language in REPORT.languages:
        known = {key.removeprefix("reason.") for key in REPORT.sentences(language)}
        assert set(REASON_CODES) <= known


def test_the_search_finds_codes_that_are_constants() -> None:
    assert {"review_approved", "review_rejected"} == set(codes_of(review))


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('Reason("new_code", "Why.")', {"new_code"}),
        ("Reason(CODE, text)", {"of_the_module"}),
        ('_reason("other_code", "Why.")', {"other_code"}),
        ('doubts = (("new_doubt", f"Adapter {short}."),)', {"new_doubt"}),
        ('doubts.append(("new_doubt", "It is so."))', {"new_doubt"}),
        ('pair = ("down_blocks", "Conv")', set()),
    ],
)
def test_the_search_finds_what_a_change_would_add(source: str, codes: set[str]) -> None:
    module = types.ModuleType("changed")
    module.CODE = "of_the_module"  # type: ignore[attr-defined]
    assert set(codes_in(ast.parse(source), module)) == codes


@pytest.mark.parametrize("source", ["Reason(unknown, 'Why.')", "Reason(f'{a}_b', 'Why.')"])
def test_a_code_that_cannot_be_read_is_a_failure(source: str) -> None:
    with pytest.raises(AssertionError, match="cannot be read"):
        list(codes_in(ast.parse(source), types.ModuleType("changed")))
