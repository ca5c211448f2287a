"""What was ruled out stays out when its weights come back in another file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from safetensors.torch import load, save

from loragate_server.adapter.reference import AdapterReference
from loragate_server.gate.request import GateRequest
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.reviews.review import ReviewAction
from loragate_server.record.reviews.reviews import ReviewRules, Reviews
from loragate_server.record.weights_book import UNKNOWN, WeightsBook
from loragate_server.replay import _again

ALLOW, REVIEW, BLOCK = VerdictKind.ALLOW, VerdictKind.REVIEW, VerdictKind.BLOCK
SUSPICIOUS, CLEAN = 5.0, 0.0


class Disguised:
    """A house, a reviewer, and files with the same weights under other digests."""

    def __init__(self, house: Any) -> None:
        self.house = house
        house.engine.score = SUSPICIOUS
        rules = ReviewRules(frozenset(), timedelta(days=30))
        self.reviews = Reviews(house.recorder, rules, told=lambda _: self.read_again())

    def read_again(self) -> None:
        self.house.book.refresh()
        self.house.weights.refresh()

    def file(self, note: str = "", seed: int = 0) -> bytes:
        """The weights of this seed, with this note in the metadata."""
        return save(load(self.house.files(seed)), {"note": note})

    async def ask(self, *notes: str, seed: int = 0, score: float | None = None) -> Any:
        if score is not None:
            self.house.engine.score = score
        files = [self.file(note, seed) for note in notes]
        adapters = tuple(AdapterReference(inline_bytes=data) for data in files)
        return await self.house.ask(GateRequest(adapters=adapters))

    def act(self, verdict: Any, action: ReviewAction) -> None:
        self.reviews.act(
            verdict.decision_id,
            action,
            reviewer="alice",
            reason="looked at it",
            position=len(self.reviews.case(verdict.decision_id).events),
            expires_at=datetime.now(UTC) + timedelta(days=1),
            admin=True,
        )

    def deny(self, sha256: str) -> None:
        text = self.house.policy_file.read_text()
        self.house.rule(
            f'{text}deny_sha256:\n  - sha256: "{sha256}"\n    note: ours is not for sale\n'
        )
        self.read_again()


@pytest.fixture
def here(house: Callable[..., Any]) -> Disguised:
    return Disguised(house())


def sha256_of(verdict: Any) -> str:
    return str(verdict.decision.evidence.adapters[0].sha256)


def codes(verdict: Any) -> list[str]:
    return [reason.code for reason in verdict.decision.reasons]


async def test_a_rejected_file_stays_rejected_under_other_metadata(here: Disguised) -> None:
    first = await here.ask("a")
    assert first.decision.verdict is REVIEW
    here.act(first, ReviewAction.REJECT)
    second = await here.ask("b", score=CLEAN)
    assert second.decision.verdict is BLOCK
    assert codes(second)[0] == "review_rejected"
    message = second.decision.reasons[0].message
    assert f"{sha256_of(second)[:12]} has the weights of {sha256_of(first)[:12]}" in message
    [adapter] = second.decision.evidence.adapters
    assert adapter.same_weights_as == (sha256_of(first),)


async def test_the_file_itself_is_rejected_as_before(here: Disguised) -> None:
    first = await here.ask("a")
    here.act(first, ReviewAction.REJECT)
    again = await here.ask("a")
    assert again.decision.verdict is BLOCK
    assert again.decision.reasons[0].message == "alice rejected this: looked at it"


async def test_a_cached_answer_ends_with_the_rejection_of_its_weights(here: Disguised) -> None:
    first = await here.ask("a")
    allowed = await here.ask("b", score=CLEAN)
    assert allowed.decision.verdict is ALLOW
    assert (await here.ask("b")).cached
    here.act(first, ReviewAction.REJECT)
    assert (await here.ask("b")).decision.verdict is BLOCK
    here.act(first, ReviewAction.REOPEN)
    assert (await here.ask("b")).decision.verdict is ALLOW


async def test_an_approval_holds_for_the_very_file_alone(here: Disguised) -> None:
    first = await here.ask("a")
    here.act(first, ReviewAction.APPROVE)
    assert (await here.ask("a")).decision.verdict is ALLOW
    assert (await here.ask("b")).decision.verdict is REVIEW


async def test_who_approves_a_file_does_not_lift_the_rejection_of_its_weights(
    here: Disguised,
) -> None:
    first, second = await here.ask("a"), await here.ask("b")
    here.act(second, ReviewAction.APPROVE)
    here.act(first, ReviewAction.REJECT)
    assert (await here.ask("b")).decision.verdict is BLOCK


async def test_a_rejected_pair_is_rejected_with_one_of_the_two_disguised(here: Disguised) -> None:
    pair = await here.ask("a", "b")
    here.act(pair, ReviewAction.REJECT)
    assert (await here.ask("a", "c", score=CLEAN)).decision.verdict is BLOCK
    other = await here.ask("a", seed=1, score=CLEAN)
    assert other.decision.verdict is ALLOW


async def test_other_weights_are_judged_by_themselves(here: Disguised) -> None:
    here.act(await here.ask("a"), ReviewAction.REJECT)
    assert (await here.ask("a", seed=1, score=CLEAN)).decision.verdict is ALLOW


async def test_the_deny_list_names_the_weights_of_a_file_that_is_on_record(here: Disguised) -> None:
    first = await here.ask("a", score=CLEAN)
    before = await here.ask("b")
    assert before.decision.verdict is ALLOW
    here.deny(sha256_of(first))
    audits = here.house.engine.audits
    denied = await here.ask("b")
    assert denied.decision.verdict is BLOCK
    assert "deny_listed" in codes(denied)
    assert any(f"{sha256_of(denied)[:12]} has the same weights" in reason.message
               for reason in denied.decision.reasons)  # fmt: skip
    assert here.house.engine.audits == audits, "what is denied is not measured"
    assert (await here.ask("b")).cached


async def test_a_denied_file_that_comes_later_ends_what_was_answered_about_its_weights(
    here: Disguised,
) -> None:
    late = hashlib.sha256(here.file("late")).hexdigest()
    here.deny(late)
    assert (await here.ask("b", score=CLEAN)).decision.verdict is ALLOW
    assert (await here.ask("late")).decision.verdict is BLOCK
    assert (await here.ask("b")).decision.verdict is BLOCK


async def test_the_allow_list_vouches_for_the_very_file_alone(here: Disguised) -> None:
    first = await here.ask("a")
    text = here.house.policy_file.read_text()
    here.house.rule(f'{text}allow_sha256:\n  - sha256: "{sha256_of(first)}"\n    note: ours\n')
    assert (await here.ask("a")).decision.verdict is ALLOW
    assert (await here.ask("b")).decision.verdict is REVIEW


async def test_another_replica_learns_what_was_ruled_out_and_what_it_holds(
    here: Disguised,
) -> None:
    first = await here.ask("a")
    weights = first.decision.evidence.adapters[0].weights_sha256
    database = here.house.recorder.database
    ruled = frozenset[str]()
    other = WeightsBook(database, lambda: ruled)
    other.refresh()
    assert other.twins_of("f" * 64, weights) == ()
    ruled = frozenset({sha256_of(first), "e" * 64})
    other.refresh()
    assert other.twins_of("f" * 64, weights) == (sha256_of(first),)
    assert other.twins_of(sha256_of(first), weights) == ()
    assert other.twins_of("f" * 64) == (UNKNOWN,)
    # What is asked about for the first time here, when it is ruled out there already.
    ruled = frozenset({*ruled, (second := await here.ask("b")) and sha256_of(second)})
    other.refresh()
    assert set(other.twins_of("f" * 64, weights)) == {sha256_of(first), sha256_of(second)}


async def test_a_replica_hears_of_a_ruled_out_file_that_another_was_asked_about(
    here: Disguised,
) -> None:
    awaited = await here.ask("a")
    ruled = frozenset({sha256_of(awaited)})
    late = WeightsBook(here.house.recorder.database, lambda: ruled)
    late._looked_up = ruled  # as if it had looked before that question
    late.refresh()
    weights = awaited.decision.evidence.adapters[0].weights_sha256
    assert late.twins_of("f" * 64, weights) == (sha256_of(awaited),)


async def test_the_log_and_the_record_hold_the_digest_of_the_weights(here: Disguised) -> None:
    verdict = await here.ask("a")
    [adapter] = verdict.decision.evidence.adapters
    assert f'"weights_sha256":"{adapter.weights_sha256}"' in here.house.log_path.read_text()
    [stored] = here.house.recorder.get(verdict.decision_id).decision.evidence.adapters
    assert stored.weights_sha256 == adapter.weights_sha256


async def test_a_replay_tells_a_denied_twin_as_it_was_told(here: Disguised) -> None:
    first = await here.ask("a", score=CLEAN)
    here.deny(sha256_of(first))
    denied = await here.ask("b")
    stored = here.house.recorder.get(denied.decision_id)
    now = datetime.now(UTC)
    assert _again(stored, here.house.policies.current, now).would_be_verdict is BLOCK
