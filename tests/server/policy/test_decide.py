"""What the policy makes of evidence."""

import math
from datetime import UTC, datetime

import pytest

from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Decision, Mode, Remedy, VerdictKind

ALLOW, REVIEW, INCONCLUSIVE, BLOCK = VerdictKind
NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
A, B, C = "a" * 64, "b" * 64, "c" * 64


def codes(decision: Decision) -> list[str]:
    """Of the reasons that decide; the evidence here is that of a server without calibration."""
    return [reason.code for reason in decision.reasons if reason.code != "uncalibrated"]


@pytest.mark.parametrize(
    ("score", "verdict", "remedy", "code"),
    [
        (3.99, ALLOW, Remedy.NONE, "no_concept_learned"),
        (4.0, REVIEW, Remedy.QUARANTINE, "concept_suspected"),
        (5.99, REVIEW, Remedy.QUARANTINE, "concept_suspected"),
        (6.0, BLOCK, Remedy.QUARANTINE, "concept_learned"),
        (math.inf, BLOCK, Remedy.QUARANTINE, "concept_learned"),
        (math.nan, INCONCLUSIVE, Remedy.QUARANTINE, "measurement_invalid"),
        (-math.inf, INCONCLUSIVE, Remedy.QUARANTINE, "measurement_invalid"),
    ],
)
def test_the_score_decides_the_verdict(
    score, verdict, remedy, code, policy, evidence, concept
) -> None:
    decision = decide(policy(), evidence(concept(score)))
    assert (decision.verdict, decision.would_be_verdict) == (verdict, verdict)
    assert (decision.remedy, codes(decision)) == (remedy, [code])
    assert decision.findings[0].verdict is verdict
    assert decision.mode is Mode.ENFORCE
    assert decision.policy_digest == policy().digest
    assert decision.ttl_s == 86400


@pytest.mark.parametrize(
    ("severity", "remedy"),
    [
        ("low", Remedy.RETRAIN),
        ("medium", Remedy.REPLACE_DATA),
        ("high", Remedy.QUARANTINE),
        ("critical", Remedy.WITHDRAW_AND_CALL_LEGAL),
        ("unheard-of", Remedy.WITHDRAW_AND_CALL_LEGAL),
    ],
)
def test_the_severity_decides_the_remedy(severity, remedy, policy, evidence, concept) -> None:
    decision = decide(policy(), evidence(concept(9, severity=severity)))
    assert decision.remedy is remedy
    assert decision.findings[0].remedy is remedy


def test_the_gravest_finding_decides_and_findings_come_highest_score_first(
    policy, evidence, concept
) -> None:
    decision = decide(
        policy(),
        evidence(
            concept(math.nan, concept_id="n"),
            concept(1, concept_id="low"),
            concept(8, concept_id="high", severity="low"),
            concept(5, concept_id="middle"),
        ),
    )
    assert decision.verdict is BLOCK
    assert [f.evidence.concept_id for f in decision.findings] == ["high", "middle", "low", "n"]
    assert [f.verdict for f in decision.findings] == [BLOCK, REVIEW, ALLOW, INCONCLUSIVE]
    assert codes(decision) == ["concept_learned", "measurement_invalid", "concept_suspected"]
    assert decision.remedy is Remedy.QUARANTINE


@pytest.mark.parametrize("p_value", [math.nan, -0.1, 1.1, math.inf])
def test_a_p_value_that_is_no_probability_is_inconclusive(
    p_value, policy, evidence, concept
) -> None:
    assert decide(policy(), evidence(concept(0, p_value))).verdict is INCONCLUSIVE


def test_a_degree_that_is_no_number_does_not_hide_below_the_floor(
    policy, evidence, concept
) -> None:
    strict = policy("  min_degree: 60\n")
    assert decide(strict, evidence(concept(9, degree=math.nan))).verdict is BLOCK
    assert decide(strict, evidence(concept(0, degree=math.nan))).verdict is INCONCLUSIVE
    assert decide(strict, evidence(concept(9, degree=59.9))).verdict is ALLOW
    assert decide(strict, evidence(concept(9, degree=60.0))).verdict is BLOCK


def test_p_value_thresholds_are_compared_with_corrected_values(policy, evidence, concept) -> None:
    by_p = policy(
        base="version: 1\nmode: enforce\ndefaults: {block_p_value: 0.01, review_p_value: 0.05}\n"
    )
    assert decide(by_p, evidence(concept(0, 0.009))).verdict is BLOCK
    bystanders = [concept(0, 0.9, concept_id=f"c{i}") for i in range(3)]
    assert decide(by_p, evidence(concept(0, 0.009), *bystanders)).verdict is REVIEW
    assert decide(by_p, evidence(concept(0, 0.0025), *bystanders)).verdict is BLOCK
    assert decide(by_p, evidence(concept(0, 0.02), *bystanders)).verdict is ALLOW


def test_either_measure_suffices(policy, evidence, concept) -> None:
    both = policy("  block_p_value: 0.001\n")
    assert decide(both, evidence(concept(0, 0.0001))).verdict is BLOCK
    assert decide(both, evidence(concept(7, 0.9))).verdict is BLOCK


def test_the_first_rule_whose_criteria_all_match_wins(policy, evidence, concept) -> None:
    rules = policy(
        "rules:\n"
        "  - {name: one, concepts: [dog], categories: [brand], block_score: 100}\n"
        "  - {name: two, severities: [high], categories: [brand], block_score: 2,"
        " review_score: 1, remedy: retrain}\n"
        "  - {name: three, categories: [brand, harm], block_score: 1, on_block: review}\n"
    )
    two = decide(rules, evidence(concept(3, category="brand", severity="high")))
    assert (two.verdict, two.remedy) == (BLOCK, Remedy.RETRAIN)
    three = decide(rules, evidence(concept(3, category="harm", severity="low")))
    assert (three.verdict, codes(three)) == (REVIEW, ["concept_learned"])
    assert decide(rules, evidence(concept(3))).verdict is ALLOW
    lenient = evidence(concept(50, concept_id="dog", category="brand"))
    assert decide(rules, lenient).verdict is REVIEW  # Inherits review_score 4.


@pytest.mark.parametrize(
    ("setting", "verdict"), [("inconclusive", INCONCLUSIVE), ("review", REVIEW), ("block", BLOCK)]
)
def test_inconclusive_evidence_gets_what_the_policy_says_and_never_allow(
    setting, verdict, policy, evidence, concept
) -> None:
    chosen = policy(f"when_inconclusive: {setting}\n")
    unsure = evidence(concept(0), inconclusive=(("unmapped_keys", "Two keys match nothing."),))
    decision = decide(chosen, unsure)
    assert (decision.verdict, codes(decision)) == (verdict, ["unmapped_keys"])
    assert decision.remedy is Remedy.QUARANTINE
    assert decide(chosen, evidence(concept(math.nan))).verdict is verdict
    early = decide(chosen, evidence(inconclusive=(("no_layer_matched", "x"),)))
    assert early.verdict is verdict


def test_block_is_graver_than_inconclusive(policy, evidence, concept) -> None:
    unsure = evidence(concept(9), inconclusive=(("unmapped_keys", "x"),))
    decision = decide(policy(), unsure)
    assert decision.verdict is BLOCK
    assert codes(decision) == ["concept_learned", "unmapped_keys"]


def test_evidence_that_forgot_to_say_that_it_knows_nothing_is_inconclusive(
    policy, evidence, concept, adapter
) -> None:
    for blind, code in [
        (evidence(), "no_concepts_audited"),
        (evidence(concept(0), adapters=()), "nothing_audited"),
        (evidence(concept(0), adapters=(adapter(unmapped=("k",)),)), "unmapped_keys"),
        (evidence(concept(0), adapters=(adapter(matched_modules=0),)), "no_layer_matched"),
        (evidence(concept(0), neutral_count=0), "no_neutral_bank"),
    ]:
        decision = decide(policy(), blind)
        assert (decision.verdict, codes(decision)) == (INCONCLUSIVE, [code])


def test_pilot_mode_allows_and_records_what_it_would_have_decided(
    policy, evidence, concept
) -> None:
    pilot = policy(base="version: 1\nmode: pilot\ndefaults: {block_score: 6}\n")
    decision = decide(pilot, evidence(concept(9)))
    assert (decision.verdict, decision.would_be_verdict) == (ALLOW, BLOCK)
    assert decision.mode is Mode.PILOT
    assert codes(decision) == ["concept_learned", "pilot_mode"]
    assert decision.remedy is Remedy.QUARANTINE


def listed(name: str, *entries: str) -> str:
    return f"{name}:\n" + "".join(f"  - {{sha256: '{e}, note: why}}\n" for e in entries)


def test_one_denied_adapter_blocks_the_set_even_if_all_are_allowed(
    policy, evidence, concept, adapter
) -> None:
    lists = policy(listed("deny_sha256", f"{B}'") + listed("allow_sha256", f"{A}'", f"{B}'"))
    pair = evidence(concept(0), adapters=(adapter(A), adapter(B)))
    decision = decide(lists, pair)
    assert (decision.verdict, codes(decision)) == (BLOCK, ["deny_listed"])
    assert decision.remedy is Remedy.QUARANTINE
    assert "why" in decision.reasons[0].message
    denied_unheard = evidence(adapters=(adapter(B),))
    assert codes(decide(lists, denied_unheard)) == ["deny_listed"]


def test_the_allow_list_skips_findings_only_if_it_holds_the_whole_set(
    policy, evidence, concept, adapter
) -> None:
    lists = policy(listed("allow_sha256", f"{A}'", f"{B}'"))
    both = decide(lists, evidence(concept(9), adapters=(adapter(A), adapter(B))))
    assert (both.verdict, codes(both)) == (ALLOW, ["allow_listed", "allow_listed"])
    assert both.remedy is Remedy.NONE
    assert both.findings[0].verdict is BLOCK  # Still shown.
    one = decide(lists, evidence(concept(9), adapters=(adapter(A), adapter(C))))
    assert (one.verdict, codes(one)) == (BLOCK, ["concept_learned"])
    unaudited = decide(lists, evidence(adapters=(adapter(A),)))
    assert unaudited.verdict is ALLOW


def test_the_allow_list_does_not_vouch_for_a_file_that_was_not_understood(
    policy, evidence, concept, adapter
) -> None:
    lists = policy(listed("allow_sha256", f"{A}'"))
    unsure = evidence(concept(0), adapters=(adapter(A, unmapped=("key",)),))
    assert decide(lists, unsure).verdict is INCONCLUSIVE


def test_the_allow_list_vouches_for_a_file_with_the_configuration_that_it_names_only(
    policy, evidence, concept, adapter
) -> None:
    bare, beside = adapter(A), adapter(A, config_sha256=B)
    refused = ["concept_learned", "allow_list_config"]
    lists = policy(listed("allow_sha256", f"{A}'"))
    assert codes(decide(lists, evidence(concept(9), adapters=(bare,)))) == ["allow_listed"]
    assert codes(decide(lists, evidence(concept(9), adapters=(beside,)))) == refused
    lists = policy(listed("allow_sha256", f"{A}', config_sha256: '{B}'"))
    assert codes(decide(lists, evidence(concept(9), adapters=(beside,)))) == ["allow_listed"]
    assert codes(decide(lists, evidence(concept(9), adapters=(bare,)))) == refused
    assert codes(decide(lists, evidence(concept(9), adapters=(bare, beside)))) == refused
    both = policy(listed("allow_sha256", f"{A}'", f"{A}', config_sha256: '{B}'"))
    pair = decide(both, evidence(concept(9), adapters=(bare, beside)))
    assert (pair.verdict, codes(pair)) == (ALLOW, ["allow_listed"] * 2)


def test_an_entry_counts_until_the_end_of_its_last_day_and_shortens_the_verdict(
    policy, evidence, concept
) -> None:
    lists = policy(listed("allow_sha256", f"{A}', expires: 2026-06-15"))
    last_day = decide(lists, evidence(concept(9)), now=NOW)
    assert (last_day.verdict, last_day.ttl_s) == (ALLOW, 12 * 3600)
    after = decide(lists, evidence(concept(9)), now=datetime(2026, 6, 16, tzinfo=UTC))
    assert (after.verdict, after.ttl_s) == (BLOCK, 86400)
    assert codes(after) == ["concept_learned", "allow_list_lapsed"]
    denies = policy(listed("deny_sha256", f"{A}', expires: 2026-06-14"))
    assert decide(denies, evidence(concept(0)), now=NOW).verdict is ALLOW


@pytest.mark.parametrize("listing", ["allow_sha256", "deny_sha256"])
def test_an_entry_until_the_last_day_of_all_counts_for_ever(
    listing: str, policy, evidence, concept
) -> None:
    lists = policy(listed(listing, f"{A}', expires: 9999-12-31"))
    assert all(one.ends_at is None for one in (*lists.allow, *lists.deny))
    found = decide(lists, evidence(concept(9)), now=NOW)
    assert f"{listing.partition('_')[0]}_listed" in codes(found)
    assert found.ttl_s == 86400


@pytest.mark.parametrize("over_all", [math.nan, -0.1, 1.1, math.inf])
def test_a_p_value_over_the_library_that_is_none_helps_no_adapter(
    over_all: float, policy, evidence, concept
) -> None:
    found = decide(policy(), evidence(concept(0, family_p_value=over_all)), now=NOW)
    assert (found.verdict, codes(found)) == (INCONCLUSIVE, ["measurement_invalid"])


OWN = """rules:
  - name: kinds
    categories: [kind]
    review_own_p_value: 0.05
"""


@pytest.mark.parametrize(
    ("category", "own_p", "verdict"),
    [("kind", 0.05, REVIEW), ("kind", 0.051, ALLOW), ("character", 0.001, ALLOW)],
)
def test_a_concept_may_be_reviewed_by_its_own_p_value(
    category, own_p, verdict, policy, evidence, concept
) -> None:
    found = concept(2.0, own_p, category=category, family_p_value=0.9)
    decision = decide(policy(OWN), evidence(found))
    assert decision.verdict is verdict
    if verdict is REVIEW:
        assert codes(decision) == ["concept_suspected"]
        assert "For this concept alone the p-value is 0.05." in decision.reasons[0].message


def test_its_own_p_value_never_softens_a_block(policy, evidence, concept) -> None:
    decision = decide(policy(OWN), evidence(concept(7.0, 0.01, category="kind")))
    assert decision.verdict is BLOCK


@pytest.mark.parametrize(("degree", "verdict"), [(0, REVIEW), (29.9, REVIEW), (30, BLOCK)])
def test_what_no_calibration_speaks_for_is_blocked_by_a_degree_alone_that_is_high_enough(
    degree, verdict, policy, evidence, concept
) -> None:
    uncalibrated = decide(policy(), evidence(concept(9, 1e-9, degree=degree)))
    assert uncalibrated.verdict is verdict
    assert uncalibrated.reasons[-1].code == "uncalibrated"
    assert uncalibrated.reasons[-1].message.startswith("No concept is calibrated;")
    slight = "Uncalibrated, it is blocked at a degree of 30 or more."
    assert (slight in uncalibrated.reasons[0].message) is (verdict is REVIEW)
    assert slight not in uncalibrated.reasons[0].plain
    calibrated = decide(policy(), evidence(concept(9, 1e-9, degree=degree, family_p_value=1e-3)))
    assert calibrated.verdict is BLOCK
    assert [reason.code for reason in calibrated.reasons] == ["concept_learned"]


def test_a_degree_that_is_no_number_is_no_reason_to_be_mild(policy, evidence, concept) -> None:
    assert decide(policy(), evidence(concept(9, degree=math.nan))).verdict is BLOCK


def test_the_degree_that_blocks_without_a_calibration_is_the_operators_to_set(
    policy, evidence, concept
) -> None:
    slight = evidence(concept(9, degree=5), concept(9, degree=5, concept_id="fox"))
    rule = "  block_degree_uncalibrated: 0\nrules:\n  - name: foxes\n    concepts: [fox]\n"
    strict = decide(policy(rule + "    block_degree_uncalibrated: 10\n"), slight)
    found = {one.evidence.concept_id: one.verdict for one in strict.findings}
    assert found == {"cat": BLOCK, "fox": REVIEW}


def test_a_verdict_names_the_concepts_that_are_uncalibrated(policy, evidence, concept) -> None:
    known = [concept(1, concept_id=f"k{n}", family_p_value=0.5) for n in range(3)]
    late = [concept(1, concept_id=f"late-{n}") for n in range(5)]
    assert codes(decide(policy(), evidence(*known))) == ["no_concept_learned"]
    [_, some] = decide(policy(), evidence(*known, late[0])).reasons
    assert some.message.startswith("Uncalibrated: late-0;")
    assert "approximate" in some.message
    [_, many] = decide(policy(), evidence(*known, *late)).reasons
    assert "Uncalibrated: late-0, late-1, late-2 and 2 more;" in many.message


def test_an_adapter_that_people_vouch_for_needs_no_calibration(policy, evidence, concept) -> None:
    listed = policy(f'allow_sha256:\n  - {{sha256: "{A}", note: seen}}\n')
    assert codes(decide(listed, evidence(concept(9, degree=0)))) == ["allow_listed"]
    assert decide(listed, evidence(concept(9, degree=0))).reasons[-1].code == "allow_listed"
