"""Questions and answers: what is audited, what is recorded, and what the cache may answer."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import Remedy, VerdictKind
from loragate_server.progress import Leash
from loragate_server.record.verdict import Caller
from testkit.evidence import as_answered

POLICY = "version: 1\nmode: enforce\ndefaults:\n  block_score: 6\n  review_score: 4\n"


async def test_an_audit_becomes_a_recorded_verdict(house: Callable[..., Any]) -> None:
    here = house()
    caller = Caller(service="images", request_id="r1")
    verdict = await here.ask(here.request(caller=caller))
    assert verdict.decision.verdict is VerdictKind.ALLOW
    assert verdict.decision.evidence.adapters[0].matched_modules > 0
    assert not verdict.cached
    assert set(verdict.stage_times_s) == {
        "intake",
        "queued",
        "read",
        "response",
        "policy",
        "record",
    }
    found = here.recorder.get(verdict.decision_id)
    assert found.decision == verdict.decision
    assert replace(found.caller, adapter_names=()) == caller
    assert len(found.caller.adapter_names) == 1
    assert here.counts.answers == [verdict]


async def test_a_learned_concept_is_blocked(house: Callable[..., Any]) -> None:
    here = house()
    here.engine.score = 9.0
    verdict = await here.ask()
    assert verdict.decision.verdict is VerdictKind.BLOCK
    assert verdict.decision.reasons[0].code == "concept_learned"


@pytest.mark.parametrize("way", ["path", "inline", "upload"])
async def test_the_second_question_is_answered_from_the_cache(
    house: Callable[..., Any], way: str
) -> None:
    here = house()

    async def ask() -> Any:
        if way == "upload":
            stored = here.gate._intake._intake.fetch(here.reference(), Leash())
            request = dataclasses.replace(here.request(), adapters=(here.reference(path=None),))
            return await here.gate.decide_stored(request, stored, Leash(), intake_s=0.1)
        return await here.ask(here.inline() if way == "inline" else here.request())

    first, second = await ask(), await ask()
    assert not first.cached
    assert second.cached
    assert second.decision_id == first.decision_id
    assert second.expires_at == first.expires_at
    assert second.decision == as_answered(first.decision)
    assert here.engine.audits == 1
    assert here.recorded() == 1
    assert here.counts.cached == {"miss": 1, "hit": 1}


async def test_bytes_and_path_of_the_same_file_are_the_same_question(
    house: Callable[..., Any],
) -> None:
    here = house()
    await here.ask(here.inline(3))
    assert (await here.ask(here.request(3))).cached


async def test_a_digest_alone_is_the_same_question_as_its_bytes(
    house: Callable[..., Any],
) -> None:
    here = house()
    by_digest = AdapterReference(stored_sha256=hashlib.sha256(here.files(3)).hexdigest())
    request = here.request(adapters=(by_digest,))
    with pytest.raises(NoDecisionError) as unknown:
        await here.ask(request)
    assert unknown.value.reason is ErrorReason.ADAPTER_NOT_STORED
    first = await here.ask(here.inline(3))
    assert (await here.ask(request)).decision_id == first.decision_id
    # Another question about stored bytes is audited without sending them again.
    weaker = dataclasses.replace(by_digest, strength=Strength(0.5, 0.5))
    fresh = await here.ask(here.request(adapters=(weaker,)))
    assert not fresh.cached
    assert here.engine.audits == 2


async def test_a_cached_verdict_is_the_one_that_would_be_given_again(
    house: Callable[..., Any],
) -> None:
    remembers, forgets = house(), house(verdict_cache_size=0)
    remembers.engine.score = forgets.engine.score = 5.0
    await remembers.ask()
    cached = await remembers.ask()
    for _ in range(2):
        again = await forgets.ask()
    assert forgets.engine.audits == 2
    assert not again.cached
    assert cached.decision == as_answered(again.decision)


async def test_a_verdict_leaves_the_cache_when_it_expires(
    house: Callable[..., Any], until: Callable[..., Any]
) -> None:
    here = house()
    here.rule(POLICY + "verdict_ttl_s: 0.2\n")
    first = await here.ask()
    assert (await here.ask()).cached
    await until(lambda: here.gate._cache._now() >= first.expires_at)
    second = await here.ask()
    assert not second.cached
    assert here.engine.audits == 2
    assert here.counts.cached["expired"] == 1


CHANGES: dict[str, Callable[[Any], Any]] = {
    "policy": lambda here: here.rule(POLICY + "verdict_ttl_s: 60\n"),
    "library": lambda here: here.serve("d" * 64),
    "base": lambda here: setattr(here.base, "digest", "e" * 64),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_a_change_of_the_house_makes_the_cache_miss(
    house: Callable[..., Any], what: str, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = house()
    monkeypatch.setattr(tiny, "digest", tiny.digest)  # put back after the test
    await here.ask()
    CHANGES[what](here)
    assert not (await here.ask()).cached
    assert here.engine.audits == 2
    assert (await here.ask()).cached


async def test_another_question_makes_the_cache_miss(house: Callable[..., Any]) -> None:
    here = house()
    questions = [
        here.request(),
        here.request(strength=0.5),
        here.request(dry_run=True),
        here.request(concept_ids=("cat",)),
        here.request(1),
        here.request(0, 1),
        here.request(1, 0),
        dataclasses.replace(
            here.request(), adapters=(here.reference(strength=Strength(1.0, 0.5)),)
        ),
    ]
    for question in questions:
        assert not (await here.ask(question)).cached
    for question in questions:
        assert (await here.ask(question)).cached
    assert here.engine.audits == len(questions)


async def test_the_adapters_own_configuration_is_part_of_the_question(
    house: Callable[..., Any],
) -> None:
    here = house()
    (folder := here.root / "style").mkdir()
    (folder / "adapter_model.safetensors").write_bytes(here.files(0))
    request = here.request(adapters=(here.reference(path=str(folder)),))
    await here.ask(request)
    assert (await here.ask(request)).cached
    for rank in (4, 8):
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 6}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        assert not (await here.ask(request)).cached


async def test_the_same_concepts_in_another_order_are_the_same_question(
    house: Callable[..., Any],
) -> None:
    here = house()
    await here.ask(here.request(concept_ids=("dog", "cat", "dog")))
    assert (await here.ask(here.request(concept_ids=("cat", "dog")))).cached


async def test_the_cache_forgets_what_was_used_longest_ago(house: Callable[..., Any]) -> None:
    here = house(verdict_cache_size=2)
    for seed in (0, 1, 0, 2):
        await here.ask(here.request(seed))
    assert (await here.ask(here.request(0))).cached
    assert not (await here.ask(here.request(1))).cached
    assert len(here.gate._cache) == 2


async def test_the_deny_list_answers_without_an_audit(house: Callable[..., Any]) -> None:
    here = house()
    sha256 = here.gate._intake._intake.fetch(here.reference(), Leash()).sha256
    here.rule(POLICY + f"deny_sha256:\n  - sha256: '{sha256}'\n    note: A face\n")
    verdict = await here.ask(here.request(1, 0))
    assert verdict.decision.verdict is VerdictKind.BLOCK
    assert verdict.decision.remedy is Remedy.QUARANTINE
    assert "A face" in " ".join(one.message for one in verdict.decision.reasons)
    assert here.engine.audits == 0
    assert here.recorded() == 1
    assert (await here.ask(here.request(1, 0))).cached


async def test_the_newest_policy_decides(house: Callable[..., Any]) -> None:
    here = house()
    here.engine.score = 9.0
    here.engine.hold()
    asked = here.ask()
    await here.engine.has_started()
    here.rule(POLICY.replace("block_score: 6", "block_score: 12"))
    here.engine.let_go()
    verdict = await asked
    assert verdict.decision.verdict is VerdictKind.REVIEW
    assert verdict.decision.policy_digest == here.policies.current.digest
    assert (await here.ask()).cached, "kept under the policy that decided"


async def test_a_policy_that_changed_meanwhile_may_refuse_the_question(
    house: Callable[..., Any],
) -> None:
    here = house()
    here.engine.hold()
    asked = here.ask()
    await here.engine.has_started()
    here.rule(POLICY + "limits:\n  strength_maximum: 0.5\n")
    here.engine.let_go()
    with pytest.raises(NoDecisionError) as refused:
        await asked
    assert refused.value.reason is ErrorReason.STRENGTH_INVALID
    assert here.recorded() == 0
