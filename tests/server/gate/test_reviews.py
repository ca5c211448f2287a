"""What reviewers decide changes the next answer, and no cached verdict outlives it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from loragate_server.policy.decision import VerdictKind
from loragate_server.record.reviews.review import ReviewAction
from loragate_server.record.reviews.reviews import ReviewRules, Reviews

ALLOW, REVIEW, BLOCK = VerdictKind.ALLOW, VerdictKind.REVIEW, VerdictKind.BLOCK
SUSPICIOUS = 5.0


class Reviewed:
    """A house with a reviewer in it."""

    def __init__(self, house: Any) -> None:
        self.house = house
        house.engine.score = SUSPICIOUS
        rules = ReviewRules(frozenset(), timedelta(days=30))
        self.reviews = Reviews(house.recorder, rules, told=lambda _: house.book.refresh())
        self.end = datetime.now(UTC) + timedelta(days=1)

    async def ask(self, *seeds: int, strength: float = 1.0) -> Any:
        return await self.house.ask(self.house.request(*seeds, strength=strength))

    def act(self, verdict: Any, action: ReviewAction) -> None:
        position = len(self.reviews.case(verdict.decision_id).events)
        self.reviews.act(
            verdict.decision_id,
            action,
            reviewer="alice",
            reason="looked at it",
            position=position,
            expires_at=self.end,
            admin=True,
        )


@pytest.fixture
def here(house: Callable[..., Any]) -> Reviewed:
    return Reviewed(house())


async def test_an_approval_changes_the_next_answer_although_the_last_one_was_cached(
    here: Reviewed,
) -> None:
    first = await here.ask()
    assert first.decision.verdict is REVIEW
    here.act(first, ReviewAction.APPROVE)
    second = await here.ask()
    assert second.decision.verdict is ALLOW
    assert second.decision.reasons[0].code == "review_approved"
    assert not second.cached
    # Counted from the moment of the decision, which is written down a little later.
    assert second.expires_at <= here.end + timedelta(seconds=1)
    third = await here.ask()
    assert third.cached
    assert third.decision_id == second.decision_id


@pytest.mark.parametrize("action", [ReviewAction.REOPEN, ReviewAction.REJECT])
async def test_an_approval_that_is_taken_back_holds_for_no_further_answer(
    here: Reviewed, action: ReviewAction
) -> None:
    first = await here.ask()
    here.act(first, ReviewAction.APPROVE)
    assert (await here.ask()).decision.verdict is ALLOW
    here.act(first, action)
    expected = REVIEW if action is ReviewAction.REOPEN else BLOCK
    assert (await here.ask()).decision.verdict is expected
    assert here.house.engine.audits == 1, "what is known is not measured again"


async def test_what_was_measured_is_judged_again_under_another_policy_only_if_it_fits(
    here: Reviewed,
) -> None:
    first = await here.ask()
    softer = "version: 1\nmode: enforce\ndefaults:\n  block_score: 6\n  review_score: 5.5\n"
    here.house.rule(softer)
    again = await here.ask()
    assert again.decision.verdict is ALLOW
    assert again.decision.evidence == first.decision.evidence
    assert here.house.engine.audits == 1
    here.house.rule(softer + "screen_miss_rate: 0.2\n")
    await here.ask()
    assert here.house.engine.audits == 2
    here.house.serve("f" * 64)
    await here.ask()
    assert here.house.engine.audits == 3


async def test_weaker_use_is_covered_and_stronger_use_is_not(here: Reviewed) -> None:
    here.act(await here.ask(strength=0.8), ReviewAction.APPROVE)
    assert (await here.ask(strength=0.5)).decision.verdict is ALLOW
    assert (await here.ask(strength=1.0)).decision.verdict is REVIEW


async def test_a_rejection_holds_beside_other_adapters(here: Reviewed) -> None:
    here.act(await here.ask(1), ReviewAction.REJECT)
    here.house.engine.score = 0.5
    assert (await here.ask(1, 2)).decision.verdict is BLOCK
    assert (await here.ask(2)).decision.verdict is ALLOW


async def test_a_review_of_one_adapter_costs_no_other_its_cached_verdict(here: Reviewed) -> None:
    await here.ask(2)
    here.act(await here.ask(1), ReviewAction.APPROVE)
    audits = here.house.engine.audits
    assert (await here.ask(2)).cached
    assert here.house.engine.audits == audits


async def test_a_review_that_came_while_the_audit_ran_counts(here: Reviewed) -> None:
    first = await here.ask()
    await here.house.engine.has_started()
    here.house.engine.hold()
    waiting = here.house.ask(here.house.request(0, strength=0.9))
    await here.house.engine.has_started()
    here.act(first, ReviewAction.REJECT)
    here.house.engine.let_go()
    assert (await waiting).decision.verdict is BLOCK


async def test_an_approval_is_not_believed_once_it_has_lapsed(here: Reviewed) -> None:
    here.end = datetime.now(UTC) + timedelta(milliseconds=1500)
    here.act(await here.ask(), ReviewAction.APPROVE)
    assert (await here.ask()).decision.verdict is ALLOW
    while datetime.now(UTC) <= here.end:
        pass
    assert (await here.ask()).decision.verdict is REVIEW
