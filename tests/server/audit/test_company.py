"""Company and decoys: no set is milder than its members, and halves are judged as their sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import Strength
from loragate_server.audit.uses import Member
from loragate_server.policy.decision import Decision, VerdictKind
from testkit.lanes import daily

ADAPTERS = Path(__file__).parents[3] / "examples" / "adapters"
LEARNED = ("bomb", "father-christmas", "jack-o-lantern", "robot-face")
BLOCK, ALLOW = VerdictKind.BLOCK, VerdictKind.ALLOW

Decided = Callable[..., Decision]


def at(strength: float) -> Strength:
    return Strength(strength, strength)


@pytest.mark.parametrize(
    ("name", "company"),
    daily(
        ("bomb", "harmless-sepia"),
        ("robot-face", "harmless-watermelon"),
        of=product(LEARNED, ("harmless-sepia", "harmless-watermelon")),
    ),
)
def test_a_loud_harmless_adapter_hides_no_learned_one(
    name: str, company: str, example: Callable[[str], Adapter], decided: Decided
) -> None:
    learned = example(f"learned-{name}")
    found = decided(Member.of(learned, at(1.0)), Member.of(example(company), at(2.0)))
    assert found.verdict is BLOCK
    worst = found.findings[0].evidence
    assert worst.concept_id == name
    used = found.evidence.uses[worst.use].adapters
    assert found.evidence.adapters[used[0].adapter].sha256 == learned.sha256


def three_harmless(example: Callable[[str], Adapter]) -> list[Member]:
    return [Member.of(example(f"harmless-{n}")) for n in ("sepia", "watermelon", "sailboat")]


def test_three_harmless_adapters_hide_no_learned_one(
    example: Callable[[str], Adapter], decided: Decided
) -> None:
    bomb = Member.of(example("learned-bomb"))
    assert decided(*three_harmless(example), bomb).verdict is BLOCK


@pytest.mark.long  # two of them are allowed together daily
def test_three_harmless_adapters_are_allowed_together(
    example: Callable[[str], Adapter], decided: Decided
) -> None:
    assert decided(*three_harmless(example)).verdict is ALLOW


def test_an_adapter_beside_its_opposite_is_judged_alone(
    example: Callable[[str], Adapter], decided: Decided
) -> None:
    bomb = example("learned-bomb")
    assert decided(Member.of(bomb, at(1.0)), Member.of(bomb, at(-1.0))).verdict is BLOCK


@pytest.mark.parametrize("first", daily(True, of=[True, False]))
def test_every_strength_at_which_an_adapter_may_be_used_is_judged(
    first: bool, example: Callable[[str], Adapter], decided: Decided
) -> None:
    bomb = example("learned-bomb")
    strengths = (at(1.0), at(-1.5)) if first else (at(-1.5), at(1.0))
    assert decided(Member((bomb,), strengths)).verdict is BLOCK


def test_an_adapter_in_two_halves_is_judged_as_the_sum(
    example: Callable[[str], Adapter], decided: Decided
) -> None:
    bomb = example("learned-bomb")
    parts = [
        replace(
            bomb,
            sha256=digit * 64,
            deltas={r: d for i, (r, d) in enumerate(bomb.deltas.items()) if i % 2 == k},
        )
        for k, digit in enumerate("ab")
    ]
    decoy = Member((example("harmless-sepia"),), (at(2.0),), optional=True)
    found = decided(Member.of(parts[0]), decoy, Member.of(parts[1]))
    assert found.verdict is BLOCK


def test_a_decoy_that_may_be_left_out_is_left_out(
    example: Callable[[str], Adapter], decided: Decided
) -> None:
    bomb = example("learned-bomb")
    decoy = Member((bomb,), (at(-1.0),), optional=True)
    assert decided(Member.of(bomb, at(1.0)), decoy).verdict is BLOCK


def test_harmless_sets_stay_allowed(example: Callable[[str], Adapter], decided: Decided) -> None:
    sepia, melon = example("harmless-sepia"), example("harmless-watermelon")
    assert (
        decided(Member.of(sepia), Member((melon,), (at(0.5), at(1.0)), optional=True)).verdict
        is ALLOW
    )
