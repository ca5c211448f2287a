"""Verdicts that older versions have stored are read, told and reported like those of today."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from loragate_server.app.exact import decide_exactly
from loragate_server.config.schema import EMBEDDED_POLICY, Config
from loragate_server.policy.decision import Mode, VerdictKind
from loragate_server.policy.known import judged_uses
from loragate_server.record.codec import encode, parse_verdict
from loragate_server.record.verdict import Verdict
from loragate_server.report.render import render
from loragate_server.report.wording import REPORT
from loragate_server.rpc.convert import verdict_message

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(params=sorted(GOLDEN.glob("verdict-*.json")), ids=lambda path: path.stem)
def text(request: pytest.FixtureRequest) -> str:
    """A payload as an older version wrote it."""
    return str(request.param.read_text())


@pytest.fixture
def older(text: str) -> Verdict:
    return parse_verdict(text)


def test_everything_that_was_written_is_still_there(text: str, older: Verdict) -> None:
    assert contains(encode(older), json.loads(text))
    assert older.decision.would_be_verdict is VerdictKind.BLOCK
    assert older.decision.mode is Mode.PILOT


def contains(now: object, then: object) -> bool:
    """Whether what is written today holds all that was written then."""
    if isinstance(then, dict):
        assert isinstance(now, dict)
        return all(contains(now[key], value) for key, value in then.items())
    if isinstance(then, list):
        assert isinstance(now, list)
        same = len(now) == len(then)
        return same and all(contains(a, b) for a, b in zip(now, then, strict=True))
    return now == then


def test_what_was_not_known_then_has_its_default(older: Verdict) -> None:
    evidence = older.decision.evidence
    assert (evidence.uses, evidence.loaders, evidence.restricted_to) == ((), (), ())
    assert evidence.screen_miss_rate is None
    assert older.binding


def test_it_is_about_all_adapters_together(older: Verdict) -> None:
    [(members, blocked)] = judged_uses(older.decision)
    assert blocked
    assert [(one.sha256[0], one.denoiser_strength) for one in members] == [("a", 0.7), ("d", -1.0)]
    finding = verdict_message(older, scores=True).findings[0]
    assert "together" in verdict_message(older, scores=True).findings[1].use
    assert len(finding.adapter_sha256s) == 2


def test_its_numbers_are_withheld_like_those_of_today(older: Verdict) -> None:
    message = verdict_message(older, scores=False)
    assert all(one.measures_withheld for one in message.findings)
    assert not re.search(r"9\.1|0\.001|54|nan", " ".join(one.message for one in message.reasons))
    assert message.reasons[0].message == "The adapter has learned a forbidden concept."


@pytest.mark.parametrize("language", REPORT.languages)
def test_a_report_can_be_made_of_it(older: Verdict, language: str) -> None:
    page = render(older, language)
    assert "Bomb" in page
    assert older.decision_id in page


def test_a_decision_of_before_its_basis_was_kept_says_that_it_cannot_be_made_again(
    older: Verdict,
) -> None:
    found = decide_exactly(Config(), older, EMBEDDED_POLICY)
    assert not found.same
    assert found.prevented == (
        "the record is of before everything was kept that a decision is made from",
    )
