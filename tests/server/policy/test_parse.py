"""The policy file: what is accepted, and that every error names line, setting and remedy."""

import hashlib
import re

import pytest

from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import Mode, Remedy, VerdictKind
from loragate_server.policy.parse import parse_policy

HEAD = "version: 1\nmode: enforce\ndefaults:\n  block_score: 6\n"


def refusal(text: str | bytes) -> NoDecisionError:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(NoDecisionError) as caught:
        parse_policy(data, "policy.yaml")
    assert caught.value.reason is ErrorReason.POLICY_INVALID
    return caught.value


def test_the_default_policy_is_valid_and_enforces() -> None:
    policy = parse_policy(EMBEDDED_POLICY.read_bytes())
    assert policy.mode is Mode.ENFORCE
    assert policy.when_inconclusive is VerdictKind.INCONCLUSIVE
    assert policy.defaults.block_p_value == 0.01
    assert policy.defaults.review_p_value == 0.05
    assert policy.defaults.block_score is None
    assert policy.screen_miss_rate == 0.01
    assert policy.limits.max_file_bytes == 2 << 30
    assert policy.remedies["critical"] is Remedy.WITHDRAW_AND_CALL_LEGAL


def test_the_commented_examples_of_the_default_policy_are_valid_too() -> None:
    text = EMBEDDED_POLICY.read_text()
    for name in ("rules", "allow_sha256"):
        example = re.search(rf"# {name}:\n(?:#   .*\n)+", text)
        assert example is not None
        body = re.sub(r"^# ", "", example[0], flags=re.M).removeprefix(f"{name}:\n")
        text = text.replace(example[0], "").replace(f"\n{name}: []\n", f"\n{name}:\n")
        text = text.replace(f"\n{name}:\n", f"\n{name}:\n{body}")
    policy = parse_policy(text.encode())
    assert policy.rules[0].thresholds.remedy is Remedy.WITHDRAW_AND_CALL_LEGAL
    assert policy.allow[0].expires is not None


def test_the_digest_is_of_the_very_bytes() -> None:
    data = HEAD.encode()
    assert parse_policy(data).digest == hashlib.sha256(data).hexdigest()
    assert parse_policy(data + b"# x\n").digest != parse_policy(data).digest


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEAD + "rules:\n  - name: a\n    severities: [high]\n    block_at: 3\n", "8:5: rules[0]"),
        (HEAD.replace("6", "six"), "4:16: defaults.block_score: must be a number, found 'six'"),
        (HEAD.replace("6", ".nan"), "4:16: defaults.block_score: must be a finite number"),
        (HEAD.replace("6", ".inf"), "4:16: defaults.block_score: must be a finite number"),
        (HEAD.replace("6", "0"), "4:16: defaults.block_score: must be above 0"),
        (HEAD.replace("6", "true"), "4:16: defaults.block_score: must be a number, found True"),
        (HEAD.replace("6", "null"), "3:1: defaults: never blocks"),
        (HEAD.replace("version: 1", "version: 2"), "1:10: version: must be at most 1"),
        (HEAD.replace("version: 1", "version: true"), "1:10: version: must be a whole number"),
        (HEAD.replace("enforce", "Enforce"), "2:7: mode: must be 'enforce' or 'pilot'"),
        (HEAD.replace("mode: enforce\n", ""), "1:1: mode: is missing"),
        (HEAD + "when_inconclusive: allow\n", "5:20: when_inconclusive: must be"),
        (HEAD + "mode: pilot\n", "5:1: mode: appears twice, first in line 2"),
        (HEAD + "  on_block: allow\n", "5:13: defaults.on_block: must be 'block' or 'review'"),
        (HEAD + "  review_score: 7\n", "5:17: defaults.review_score: must be at most block_score"),
        (
            HEAD + "  block_p_value: 0.01\n  review_p_value: 0.001\n",
            "6:19: defaults.review_p_value: must be at least block_p_value",
        ),
        (HEAD + "rules:\n  - name: a\n", "6:5: rules[0]: matches every concept"),
        (
            HEAD + "rules:\n  - {name: a, concepts: [x], block_score: null}\n",
            "6:5: rules[0]: never blocks",
        ),
        (HEAD + "rules:\n  - {name: a, concepts: []}\n", "rules[0].concepts: is an empty list"),
        (HEAD + "rules:\n  - {name: a, concepts: [5]}\n", "rules[0].concepts[0]: must be text"),
        (HEAD + "rules: {}\n", "5:8: rules: must be a list"),
        (HEAD + "limits: [1]\n", "5:9: limits: must be a mapping"),
        (
            HEAD + "limits: {strength_minimum: 2, strength_maximum: 2}\n",
            "limits.strength_minimum: must be below strength_maximum",
        ),
        (HEAD + "verdict_ttl_s: 0\n", "5:16: verdict_ttl_s: must be above 0"),
        (
            HEAD + "deny_sha256:\n  - {sha256: abc, note: x}\n",
            "6:14: deny_sha256[0].sha256: must be a sha256 of 64 hexadecimal digits",
        ),
        (HEAD + f"deny_sha256:\n  - {{sha256: {'a' * 64}}}\n", "deny_sha256[0].note: is missing"),
        (
            HEAD + f"allow_sha256:\n  - {{sha256: {'a' * 64}, note: x, expires: soon}}\n",
            "allow_sha256[0].expires: must be a day",
        ),
        (
            HEAD + "allow_sha256:\n" + 2 * f"  - {{sha256: {'a' * 64}, note: x}}\n",
            "7:14: allow_sha256[1].sha256: is listed twice",
        ),
        (HEAD + "limits: &a {max_adapters: 1}\nrules: *a\n", "rules: is an alias"),
        (HEAD + "rules: !!python/name:os.system x\n", "5:8: rules: has the tag"),
        (HEAD + "rules: [\n", "policy.yaml:6:1: (file): "),
        (HEAD + "---\nversion: 1\n", "(file): but found another document"),
        (HEAD + "verdict_ttl_s: 2026-13-45\n", "5:16: verdict_ttl_s: cannot be read"),
        (HEAD + "verdict_ttl_s: " + "9" * 5000 + "\n", "5:16: verdict_ttl_s: cannot be read"),
        ("", "1:1: (file): is empty"),
        ("# only a comment\n", "1:1: (file): is empty"),
        ("just text\n", "1:1: (file): must be a mapping"),
        ("- 1\n", "1:1: (file): must be a mapping"),
        (b"mode: \xff\xfe\n", "1:1: (file): not UTF-8"),
        ("mode: \x00\n", "1:1: (file): "),
        ("[" * 20000, "1:1: (file): "),
        ("? [a, b]\n: 1\n", "1:3: (file): a key is not text"),
        ("a: " * 2, "(file): mapping values are not allowed here"),
        (b"#" * (1 << 20) + b"#", "1:1: (file): the file has 1048577 bytes"),
    ],
)
def test_a_wrong_file_is_refused_with_line_setting_and_remedy(text: str | bytes, line: str) -> None:
    error = refusal(text)
    assert line in error.message
    first = error.message.splitlines()[0]
    assert re.fullmatch(r"policy\.yaml:\d+:\d+: [^:]+: .+; .+[.?]", first), first
    assert error.metadata["file"] == "policy.yaml"
    assert first.startswith(f"policy.yaml:{error.metadata['line']}:")


def test_a_misspelt_setting_is_refused_with_a_guess() -> None:
    error = refusal(HEAD + "  blok_score: 3\n")
    assert "policy.yaml:5:3: defaults.blok_score: is not a known setting" in error.message
    assert "did you mean 'block_score'?" in error.message


def test_all_problems_are_listed_in_the_order_of_the_file() -> None:
    text = HEAD.replace("enforce", "x").replace("6", "y") + "z: 1\n"
    lines = [int(line.split(":")[1]) for line in refusal(text).message.splitlines()]
    assert lines == [2, 4, 5]


def test_many_problems_are_cut_short_but_counted() -> None:
    text = HEAD + "".join(f"z{i}: 1\n" for i in range(30))
    assert refusal(text).message.splitlines()[-1] == "... and 20 more problems"


def test_rules_inherit_what_they_do_not_give_and_null_switches_off() -> None:
    policy = parse_policy(
        (
            HEAD + "  review_score: 4\n  min_degree: 10\n"
            "rules:\n"
            "  - {name: a, concepts: [x], block_score: 5}\n"
            "  - {name: b, categories: [y], block_score: null, block_p_value: 0.01,\n"
            "     review_score: null, min_degree: 0, on_block: review}\n"
        ).encode()
    )
    a, b = (rule.thresholds for rule in policy.rules)
    assert (a.block_score, a.review_score, a.min_degree) == (5, 4, 10)
    assert (b.block_score, b.block_p_value, b.review_score, b.min_degree) == (None, 0.01, None, 0)
    assert b.on_block is VerdictKind.REVIEW


def test_digests_of_the_lists_are_compared_in_lower_case() -> None:
    policy = parse_policy((HEAD + f"deny_sha256: [{{sha256: '{'AB' * 32}', note: n}}]\n").encode())
    assert policy.deny[0].sha256 == "ab" * 32
