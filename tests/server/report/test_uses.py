"""The report says which adapter, at which strengths, for which loaders, alone or together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from loragate_server.audit.evidence import Evidence, UsedAdapter, UseEvidence
from loragate_server.policy.decide import decide
from loragate_server.policy.known import KnownUse, apply_known, judged_uses
from loragate_server.policy.parse import parse_policy
from loragate_server.record.verdict import Verdict
from loragate_server.report.render import render
from loragate_server.report.wording import REPORT
from testkit import evidence as built
from tests.server.report.conftest import CALLER, POLICY
from tests.server.report.test_render import Page

LOADERS = ("diffusers", "comfyui")
TOGETHER = UseEvidence((UsedAdapter(0, 0.8, 1.0), UsedAdapter(1, 2.0, 2.0)), LOADERS)
FIRST = UseEvidence((UsedAdapter(0, 0.8, 1.0),), LOADERS)
SECOND = UseEvidence((UsedAdapter(1, 2.0, 2.0),), ("comfyui",))


@pytest.fixture
def pair(
    evidence: Callable[..., Evidence],
    concept: Callable[..., object],
    clean: Callable[..., tuple[object, ...]],
    coverage: Callable[..., object],
) -> Callable[[int], Evidence]:
    """Two adapters, of which a use has learned a concept."""

    def make(use: int) -> Evidence:
        return evidence(
            concept(score=6.4, p_value=2e-8, degree=63.0, use=use),
            *clean()[1:],
            adapters=(coverage("a"), coverage("f", refused_by={"comfyui": "It is damaged."})),
            uses=(TOGETHER, FIRST, SECOND),
            loaders=LOADERS,
        )

    return make


@pytest.mark.parametrize(
    ("use", "headline", "card"),
    [
        (
            0,
            "was found in these 2 adapters together.",
            "adapter 1 at strength 0.8 (text encoder 1) and adapter 2 at strength 2 together",
        ),
        (
            1,
            "was found in adapter 1 of these 2, judged alone.",
            "adapter 1 alone, at strength 0.8 (text encoder 1)",
        ),
        (
            2,
            "was found in adapter 2 of these 2, judged alone.",
            "adapter 2 alone, at strength 2, as comfyui read it",
        ),
    ],
)
def test_headline_and_card_name_the_use(
    use: int,
    headline: str,
    card: str,
    pair: Callable[[int], Evidence],
    recorded: Callable[..., Verdict],
) -> None:
    page = Page(render(recorded(pair(use))))
    assert headline in page.text("h1")
    assert card in page.text(".card")
    assert "has" in page.text("#reasons") or "have" in page.text("#reasons")


def test_the_facts_say_what_was_judged_and_for_whom(
    pair: Callable[[int], Evidence], recorded: Callable[..., Verdict]
) -> None:
    facts = Page(render(recorded(pair(0)))).text("#facts")
    assert "Holds for these loaders diffusers, comfyui; comfyui refuses adapter 2" in facts
    assert "adapter 2 alone, at strength 2, as comfyui read it" in facts
    japanese = Page(render(recorded(pair(0)), "ja")).text("#facts")
    assert "アダプター2単独（適用強度2）、comfyuiによる読み込み" in japanese


def test_many_uses_are_counted(
    pair: Callable[[int], Evidence], recorded: Callable[..., Verdict]
) -> None:
    many = replace(pair(0), uses=(TOGETHER, FIRST, SECOND) * 7)
    facts = Page(render(recorded(many))).text("#facts")
    assert "and 9 more" in facts


def test_a_single_adapter_is_not_numbered(
    made: dict[str, tuple[Evidence, str, bool]], recorded: Callable[..., Verdict]
) -> None:
    card = Page(render(recorded(*made["block"]))).text(".card")
    assert "at strength 0.8 (text encoder 1)" in card
    assert "adapter 1" not in card


def test_a_restricted_question_binds_nobody_and_says_so(
    made: dict[str, tuple[Evidence, str, bool]], recorded: Callable[..., Verdict]
) -> None:
    found = replace(made["allow"][0], restricted_to=("acme", "bomb"), screen_miss_rate=0.01)
    page = Page(render(recorded(found)))
    assert page.text(".notice").startswith("Restricted question.")
    assert page.text(".binding") == ""
    facts = page.text("#facts")
    assert "Concepts asked about acme, bomb" in facts
    assert "1 %" in facts


@pytest.mark.parametrize("language", REPORT.languages)
def test_company_of_a_blocked_adapter_is_explained(
    language: str, pair: Callable[[int], Evidence], clean: Callable[..., tuple[object, ...]]
) -> None:
    policy = parse_policy(POLICY.format(mode="enforce").encode())
    blocked = decide(policy, replace(pair(0), adapters=pair(0).adapters[:1], uses=()))
    [(members, _)] = judged_uses(blocked)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    known = KnownUse("d" * 32, at, "b" * 64, members, True)
    clear = replace(pair(0), concepts=clean())
    decision = apply_known(decide(policy, clear), [known])
    verdict = built.verdict(decision, caller=CALLER)
    page = Page(render(verdict, language))
    said = {"en": "is on record as blocked", "ja": "使用不可と記録されており"}
    assert said[language] in page.text("h1")
    assert "d" * 32 in page.text("#reasons")
    steps = {"en": "ask about those files without the others", "ja": "改めて審査"}
    assert steps[language] in page.text("#remedy")
