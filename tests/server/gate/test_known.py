"""What is on record as blocked is let through by no company, whatever the audit of the set says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loragate_server.adapter.reference import Strength
from loragate_server.gate.request import GateRequest
from loragate_server.policy.decide import decide
from loragate_server.policy.decision import VerdictKind
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.progress import Leash
from loragate_server.record.known_book import KnownBook
from loragate_server.record.verdict import Caller
from testkit.evidence import adapter, concept, evidence

ALLOW, REVIEW, BLOCK = VerdictKind.ALLOW, VerdictKind.REVIEW, VerdictKind.BLOCK
LEARNED, SUSPICIOUS, CLEAN = 9.0, 5.0, 0.0


class Court:
    """A house whose engine finds what the test wants."""

    def __init__(self, house: Any) -> None:
        self.house = house

    async def judge(self, score: float, *seeds: int, **changes: Any) -> Any:
        """The verdict on a set in which the audit measures this score."""
        return await self.ask(score, self.house.request(*seeds, **changes))

    async def ask(self, score: float, request: GateRequest) -> Any:
        self.house.engine.score = score
        return await self.house.ask(request)


@pytest.fixture
def court(house: Callable[..., Any]) -> Court:
    return Court(house())


def codes(verdict: Any) -> list[str]:
    return [reason.code for reason in verdict.decision.reasons]


async def test_company_hides_nobody_who_was_blocked_alone(court: Court) -> None:
    alone = await court.judge(LEARNED, 0)
    assert alone.decision.verdict is BLOCK
    for others in ((1,), (1, 2), (2, 1, 3)):
        verdict = await court.judge(CLEAN, 0, *others)
        assert verdict.decision.verdict is BLOCK
        assert codes(verdict)[0] == "known_bad"
        assert alone.decision_id in verdict.decision.reasons[0].message
        assert "no_concept_learned" not in codes(verdict)
        assert verdict.decision.remedy != "NONE"


async def test_company_without_the_blocked_one_is_judged_for_itself(court: Court) -> None:
    await court.judge(LEARNED, 0)
    assert (await court.judge(CLEAN, 1, 2)).decision.verdict is ALLOW
    assert (await court.judge(SUSPICIOUS, 1, 3)).decision.verdict is REVIEW


@pytest.mark.parametrize("strength", [0.05, 0.5, -1.0, 1.0, 2.0])
async def test_no_strength_in_company_was_allowed_by_a_block_at_another(
    court: Court, strength: float
) -> None:
    await court.judge(LEARNED, 0)
    assert (await court.judge(CLEAN, 0, 1, strength=strength)).decision.verdict is BLOCK


async def test_a_strength_that_was_allowed_alone_since_is_allowed_in_company(
    court: Court,
) -> None:
    await court.judge(LEARNED, 0)
    assert (await court.judge(CLEAN, 0, strength=0.2)).decision.verdict is ALLOW
    assert (await court.judge(CLEAN, 0, 1, strength=0.2)).decision.verdict is ALLOW
    assert (await court.judge(CLEAN, 0, 1, strength=0.21)).decision.verdict is BLOCK
    assert (await court.judge(CLEAN, 0, 1)).decision.verdict is BLOCK


async def test_text_encoders_count_as_a_strength_of_their_own(court: Court) -> None:
    await court.judge(LEARNED, 0)
    await court.judge(CLEAN, 0, strength=0.2)
    louder = Strength(0.2, 1.0)
    members = (court.house.reference(0, strength=louder), court.house.reference(1))
    verdict = await court.ask(CLEAN, court.house.request(adapters=members))
    assert verdict.decision.verdict is BLOCK


async def test_of_several_strengths_in_company_all_have_to_be_allowed(court: Court) -> None:
    await court.judge(LEARNED, 0)
    await court.judge(CLEAN, 0, strength=0.2)
    low, high = Strength(0.2, 0.2), Strength(0.3, 0.3)

    def asked(*also: Strength) -> GateRequest:
        one = court.house.reference(0, strength=low, also=also)
        return court.house.request(adapters=(one, court.house.reference(1)))

    assert (await court.ask(CLEAN, asked())).decision.verdict is ALLOW
    assert (await court.ask(CLEAN, asked(high))).decision.verdict is BLOCK
    await court.judge(CLEAN, 0, strength=0.3)
    assert (await court.ask(CLEAN, asked(high))).decision.verdict is ALLOW


async def test_a_member_that_may_be_left_out_hides_nobody(court: Court) -> None:
    await court.judge(LEARNED, 0)
    maybe = court.house.reference(1, optional=True)
    request = court.house.request(adapters=(court.house.reference(0), maybe))
    assert (await court.ask(CLEAN, request)).decision.verdict is BLOCK
    maybe = court.house.reference(0, optional=True)
    request = court.house.request(adapters=(court.house.reference(1), maybe))
    assert (await court.ask(CLEAN, request)).decision.verdict is BLOCK


async def test_a_blocked_file_is_no_company_for_itself(court: Court) -> None:
    await court.judge(LEARNED, 0)
    verdict = await court.judge(CLEAN, 0, 0, strength=0.5)
    assert verdict.decision.verdict is BLOCK


async def test_a_pair_that_was_blocked_together_is_not_let_through_by_a_third(
    court: Court,
) -> None:
    assert (await court.judge(LEARNED, 0, 1)).decision.verdict is BLOCK
    assert (await court.judge(CLEAN, 1, 2, 0)).decision.verdict is BLOCK
    assert (await court.judge(CLEAN, 0, 2)).decision.verdict is ALLOW
    assert (await court.judge(CLEAN, 1)).decision.verdict is ALLOW
    assert (await court.judge(CLEAN, 1, 2, 0, strength=0.5)).decision.verdict is BLOCK


@pytest.mark.parametrize("score", [SUSPICIOUS, LEARNED])
async def test_only_an_allow_takes_a_block_back(court: Court, score: float) -> None:
    await court.judge(LEARNED, 0)
    court.house.serve("d" * 64)
    assert (await court.judge(score, 0)).decision.verdict is not ALLOW
    assert (await court.judge(CLEAN, 0, 1)).decision.verdict is BLOCK


async def test_the_newest_decision_about_the_same_use_counts(court: Court) -> None:
    for number, (score, then) in enumerate([(LEARNED, BLOCK), (CLEAN, ALLOW), (LEARNED, BLOCK)]):
        court.house.serve(f"{number}" * 64)
        await court.judge(score, 0)
        assert (await court.judge(CLEAN, 0, 1)).decision.verdict is then


@pytest.mark.parametrize("changes", [{"dry_run": True}, {"concept_ids": ("cat",)}])
async def test_what_does_not_bind_neither_blocks_nor_allows(
    court: Court, changes: dict[str, Any]
) -> None:
    await court.judge(LEARNED, 0, **changes)
    assert (await court.judge(CLEAN, 0, 1)).decision.verdict is ALLOW
    await court.judge(LEARNED, 2)
    court.house.serve("d" * 64)
    await court.judge(CLEAN, 2, **changes)
    assert (await court.judge(CLEAN, 2, 1)).decision.verdict is BLOCK


async def test_a_cached_answer_does_not_outlive_what_becomes_known(court: Court) -> None:
    first = await court.judge(CLEAN, 0, 1)
    assert first.decision.verdict is ALLOW
    assert (await court.judge(CLEAN, 0, 1)).cached
    await court.judge(LEARNED, 0)
    second = await court.judge(CLEAN, 0, 1)
    assert not second.cached
    assert second.decision.verdict is BLOCK
    again = await court.judge(CLEAN, 0, 1)
    assert again.cached
    assert again.decision.verdict is BLOCK


async def test_what_becomes_known_while_a_set_is_audited_counts(court: Court) -> None:
    here = court.house
    here.engine.hold()
    asked = here.ask(here.request(0, 1))
    await here.engine.has_started()
    record_elsewhere(here)
    here.known.refresh()
    here.engine.let_go()
    assert (await asked).decision.verdict is BLOCK


def record_elsewhere(here: Any) -> None:
    """Another replica blocks the first adapter, in the same database."""
    [(used,)] = wanted(here, 0)
    found = evidence(
        concept(LEARNED, 1e-9),
        adapters=(adapter(used.sha256),),
        base_model=here.base.name,
        base_digest=here.base.digest,
    )
    decision = decide(here.policies.current, found)
    assert decision.verdict is BLOCK
    here.recorder.record(decision, Caller(), stage_times_s={})


def wanted(here: Any, *seeds: int) -> tuple[tuple[ReviewedAdapter, ...], ...]:
    """What the gate asks the book about these adapters at full strength."""
    fetch = here.gate._intake._intake.fetch
    found = [fetch(here.reference(seed), Leash()) for seed in seeds]
    return tuple((ReviewedAdapter(one.sha256, "", 1.0, 1.0),) for one in found)


async def test_another_base_model_is_another_matter(court: Court) -> None:
    await court.judge(LEARNED, 0)
    here = court.house
    [use] = here.known.about(wanted(here, 0, 1), here.base.digest)
    assert use.base_digest == here.base.digest
    assert here.known.about(wanted(here, 0, 1), "e" * 64) == ()


async def test_a_server_that_starts_again_knows_what_it_knew(court: Court) -> None:
    await court.judge(LEARNED, 0)
    here = court.house
    fresh = KnownBook(here.recorder.database)
    fresh.refresh()
    asked, digest = wanted(here, 0, 1), here.base.digest
    assert fresh.about(asked, digest) == here.known.about(asked, digest) != ()


async def test_in_pilot_mode_it_is_told_and_binds_nobody(court: Court) -> None:
    here = court.house
    here.rule(here.policy_file.read_text().replace("enforce", "pilot"))
    await court.judge(LEARNED, 0)
    verdict = await court.judge(CLEAN, 0, 1)
    assert verdict.decision.verdict is ALLOW
    assert verdict.decision.would_be_verdict is BLOCK
    assert {"known_bad", "pilot_mode"} <= set(codes(verdict))


async def test_when_the_operator_vouches_for_every_file_the_record_is_silent(
    court: Court,
) -> None:
    here = court.house
    await court.judge(LEARNED, 0)
    listed = [used.sha256 for (used,) in wanted(here, 0, 1)]
    entries = "".join(f'  - sha256: "{one}"\n    note: Seen\n' for one in listed)
    here.rule(here.policy_file.read_text() + "allow_sha256:\n" + entries)
    assert (await court.judge(CLEAN, 0, 1)).decision.verdict is ALLOW
    assert (await court.judge(CLEAN, 0, 1, 2)).decision.verdict is BLOCK
    assert (await court.judge(LEARNED, 0)).decision.verdict is ALLOW
    here.rule(here.policy_file.read_text().partition("allow_sha256")[0])
    assert (await court.judge(CLEAN, 0, 1)).decision.verdict is BLOCK
