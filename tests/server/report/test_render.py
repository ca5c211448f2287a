"""Reports on verdicts that were really decided and recorded, read with an HTML parser."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from loragate_server.audit.evidence import ConceptEvidence, Evidence, HeatMap
from loragate_server.policy.decision import Reason
from loragate_server.record.verdict import Verdict
from loragate_server.report.render import render
from loragate_server.report.wording import report_wording
from tests.server.report.reading import Page

Recorded = Callable[..., Verdict]


def test_every_kind_of_verdict_can_be_read_in_both_languages(
    kind: str, made: dict[str, tuple[Evidence, str, bool]], recorded: Recorded, language: str
) -> None:
    verdict = recorded(*made[kind])
    text = render(verdict, language)
    assert text == render(verdict, language)
    page = Page(text)
    wording = report_wording(language)
    assert dict(page.elements[0][1]) == {"lang": language}
    assert verdict.decision_id in page.text("#facts")
    for name in ("remedy", "reasons", "heat", "all", "limits", "facts"):
        title = wording(f"{name}.title", remedy="").rstrip(" ：:")
        assert title in page.text(f"#{name}"), name
    for adapter in verdict.decision.evidence.adapters:
        assert adapter.sha256 in page.text("#facts")
    for reason in verdict.decision.reasons:
        assert wording(f"reason.{reason.code}") in page.text("#reasons")
        assert re.sub(r"\s+", " ", reason.message) in page.text("#reasons")
    assert "{" not in page.text()
    assert "None" not in page.text("#facts")


def test_a_page_loads_and_runs_nothing(
    kind: str, made: dict[str, tuple[Evidence, str, bool]], recorded: Recorded
) -> None:
    text = render(recorded(*made[kind]))
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"script", "img", "link", "iframe", "object"}
    for _, facts in page.elements:
        assert not [name for name in facts if name.startswith("on") or name in ("src", "href")]
    assert "url(" not in text
    assert "@import" not in text


HEADLINES = {
    "allow": ("Allowed", "None of the 5 forbidden concepts that were looked for was found"),
    "review": ("A person has to decide", "There are signs of the forbidden concept “Acme Mascot”"),
    "block": ("Blocked", "The forbidden concept “Acme Mascot” was found in this adapter."),
    "inconclusive": ("No verdict possible", "It was not possible to examine this adapter in full"),
    "doubt_blocks": ("Blocked", "It was not possible to examine this adapter in full"),
    "pilot": ("Would have been blocked", "The forbidden concept “Acme Mascot” was found"),
    "dry_run": ("Blocked", "The forbidden concept “Acme Mascot” was found"),
    "deny_listed": ("Blocked", "The operator's deny list names this adapter"),
    "allow_listed": ("Allowed", "The operator's allow list vouches for this adapter."),
    "several": ("Blocked", "was found in these 2 adapters together."),
}


def test_the_headline_says_the_verdict(
    kind: str, made: dict[str, tuple[Evidence, str, bool]], english: Callable[..., Page]
) -> None:
    page = english(*made[kind])
    words, sentence = HEADLINES[kind]
    assert words in page.text(".badge")
    assert sentence in page.text("h1")


def test_a_pilot_cannot_be_mistaken(
    made: dict[str, tuple[Evidence, str, bool]], english: Callable[..., Page]
) -> None:
    page = english(*made["pilot"])
    assert page.text(".notice").startswith("Pilot. Nothing was stopped.")
    assert "Would have been blocked BLOCK" in page.text("#facts")
    assert "Allowed ALLOW" in page.text("#facts")
    assert page.text(".binding") == ""
    assert "find out whether the adapter is in use now" in page.text("#remedy")


def test_a_dry_run_binds_nobody(
    made: dict[str, tuple[Evidence, str, bool]], english: Callable[..., Page]
) -> None:
    page = english(*made["dry_run"])
    assert page.text(".notice").startswith("Dry run.")
    assert page.text(".binding") == ""


def test_the_allow_list_sets_findings_aside(
    made: dict[str, tuple[Evidence, str, bool]], english: Callable[..., Page]
) -> None:
    page = english(*made["allow_listed"])
    assert "did not count, because the allow list decided" in page.text("#found")


def test_one_of_several_on_the_deny_list_is_not_said_of_all(
    evidence: Callable[..., Evidence],
    coverage: Callable[..., object],
    english: Callable[..., Page],
) -> None:
    found = evidence(adapters=(coverage("a"), coverage("d")), layers=())
    page = english(found, f'deny_sha256:\n  - sha256: "{"d" * 64}"\n    note: Ticket 123\n')
    assert "at least one of these 2 adapters together" in page.text("h1")


def test_no_numbers_are_invented_where_nothing_was_measured(
    made: dict[str, tuple[Evidence, str, bool]], english: Callable[..., Page]
) -> None:
    for kind in ("inconclusive", "deny_listed"):
        page = english(*made[kind])
        assert "There are no numbers." in page.text("#found")
        assert page.text("#all").endswith("No concept was measured.")
        assert "Nothing was examined" in page.text("#limits")
        assert "No heat map was recorded" in page.text("#heat")


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"family_p_value": 0.0123}, "Of 1,000 harmless adapters, about 12 would look this"),
        ({"family_p_value": 0.0007}, "fewer than 1 would look this suspicious: about 1 in 1,400."),
        ({"family_p_value": 0.0}, "Of 1,000,000 harmless adapters, fewer than 1"),
        ({"family_p_value": 1.0}, "nearly all would look at least this suspicious"),
        (
            {"family_p_value": 0.02},
            "harmless adapters that were measured beforehand (p-value 0.02)",
        ),
        ({"p_value": 0.004}, "Rough estimate. Of 1,000 harmless adapters, about 20 would"),
        ({"p_value": 0.004}, "not calibrated with harmless adapters. The number (p-value 0.02)"),
        ({"p_value": math.nan}, "How sure this is cannot be stated"),
    ],
)
def test_how_sure_it_is_stands_in_plain_words(
    facts: dict[str, float],
    sentence: str,
    concept: Callable[..., object],
    evidence: Callable[..., Evidence],
    clean: Callable[..., tuple[object, ...]],
    english: Callable[..., Page],
) -> None:
    page = english(evidence(concept(score=6, **facts), *clean()[1:]))
    assert sentence in page.text(".card")


def test_nothing_is_claimed_beyond_what_was_counted(
    concept: Callable[..., object],
    evidence: Callable[..., Evidence],
    clean: Callable[..., tuple[object, ...]],
    english: Callable[..., Page],
) -> None:
    found = concept(score=9, family_p_value=1e-7)
    page = english(evidence(found, *clean()[1:], calibration_size=150))
    card = page.text(".card")
    assert "None of the 150 harmless adapters that were measured beforehand looked this" in card
    assert "estimated from them, beyond what could be counted" in card
    assert "1,000,000" not in card


def test_the_degree_is_a_bar_with_words(
    concept: Callable[..., object],
    evidence: Callable[..., Evidence],
    english: Callable[..., Page],
) -> None:
    page = english(evidence(concept(score=6, degree=63.4)))
    assert "63 of 100" in page.text(".card")
    assert "deeply anchored" in page.text(".card")
    [bar] = [n for n, (tag, facts) in enumerate(page.elements) if facts.get("class") == "bar"]
    assert page.elements[bar][1]["aria-label"] == "63 of 100"
    # attributes of a drawing, because the console's pages allow no style in the text
    assert page.elements[bar + 1] == ("rect", {"width": "63.4", "height": "8"})


def test_numbers_that_are_no_numbers_are_shown_as_such(
    concept: Callable[..., object],
    evidence: Callable[..., Evidence],
    english: Callable[..., Page],
) -> None:
    page = english(
        evidence(
            concept(0, score=math.inf, p_value=0.0, degree=math.nan),
            concept(1, score=math.nan, p_value=math.nan),
            heat_map=HeatMap("concept-0", ("a.0",), ("0.16", "0.5"), ((math.inf, math.nan),)),
        )
    )
    assert "∞ standard deviations" in page.text(".card")
    assert "not measured" in page.text(".card")
    assert "not measurable" in page.text("#all")
    assert [facts["class"] for tag, facts in page.elements if "title" in facts] == ["h6", "hnone"]
    assert not re.search(r"\b(nan|inf)\b", page.text("#all") + page.text("#heat"))


HOSTILE = "</title><script>alert(1)</script>{{ 7*7 }}{verdict}\" onload='x' \u202egnp.exe & \ud800"


def test_hostile_text_stays_text(
    concept: Callable[..., object],
    evidence: Callable[..., Evidence],
    coverage: Callable[..., object],
    recorded: Recorded,
    language: str,
) -> None:
    found = evidence(
        concept(score=6, concept_name=HOSTILE, category=HOSTILE, severity=HOSTILE),
        adapters=(coverage(format=HOSTILE),),
        base_model=HOSTILE,
        heat_map=HeatMap("concept-0", (HOSTILE, HOSTILE * 30), (HOSTILE,), ((1.0,), (2.0,))),
    )
    verdict = recorded(found)
    decision = replace(verdict.decision, reasons=(Reason(HOSTILE, HOSTILE),))
    text = render(replace(verdict, decision=decision), language)
    text.encode("utf-8")
    page = Page(text)
    assert not [tag for tag, _ in page.elements if tag == "script"]
    assert not [facts for _, facts in page.elements if "onload" in facts]
    assert "<script>alert(1)</script>{{ 7*7 }}{verdict}" in page.text(".card")
    assert "\u202e" not in text


def test_a_very_long_name_is_cut_in_the_headline_only(
    concept: Callable[..., object],
    evidence: Callable[..., Evidence],
    english: Callable[..., Page],
) -> None:
    page = english(evidence(concept(score=6, concept_name="N" * 250)))
    assert f"“{'N' * 59}…”" in page.text("h1")
    assert "N" * 250 in page.text("#all")


def test_the_other_concepts_are_folded_away_but_all_are_there(
    concept: Callable[..., object],
    evidence: Callable[..., Evidence],
    clean: Callable[..., tuple[object, ...]],
    english: Callable[..., Page],
) -> None:
    page = english(evidence(*(concept(n, score=6) for n in range(5)), *clean(40)[5:]))
    assert sum("card" in str(facts.get("class")) for _, facts in page.elements) == 3
    assert "and 2 more" in page.text("#found")
    assert "35 more concepts, none of them found" in page.text("summary")
    for number in range(40):
        assert re.search(rf"concept-{number}\b", page.text("#all"))


@pytest.mark.parametrize(
    ("hands", "sentence"),
    [
        ((3, 1), "1 of these concepts are shown by one hand only"),
        ((3, 2), "each concept is shown by at least 2 different hands"),
        ((0, 0), None),  # recorded before that was told
    ],
)
def test_a_report_says_by_how_many_hands_its_concepts_are_shown(
    evidence: Callable[..., Evidence],
    concept: Callable[..., ConceptEvidence],
    english: Callable[..., Page],
    hands: tuple[int, int],
    sentence: str | None,
) -> None:
    concepts = [replace(concept(), concept_id=str(at), hands=one) for at, one in enumerate(hands)]
    limits = english(evidence(*concepts), "").text("#limits")
    assert ("Pictures by others" in limits) is (sentence is not None)
    assert (sentence or "") in limits
