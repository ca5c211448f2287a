"""Questions about some concepts only: who may ask them, and that they bind nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.request import GateRequest
from loragate_server.policy.decision import VerdictKind
from loragate_server.record.codec import parse_verdict
from loragate_server.record.verdict import Caller

RULES = "version: 1\nmode: enforce\ndefaults:\n  block_score: 6\n  review_score: 4\n"
TRUSTED = RULES + "restrict:\n  callers: [research, spiffe://prod/audit]\n"
SUSPICIOUS = 5.0


def asked_by(here: Any, identity: str, *concept_ids: str, **changes: Any) -> GateRequest:
    caller = Caller(service="research", identity=identity)
    return replace(here.request(**changes), caller=caller, concept_ids=concept_ids)


@pytest.mark.parametrize("rules", [RULES, RULES + "restrict:\n  callers: []\n", TRUSTED])
@pytest.mark.parametrize("identity", ["", "image-api", "Research", "*", "research "])
@pytest.mark.parametrize("dry_run", [False, True])
async def test_who_is_not_named_may_not_restrict_a_question(
    house: Callable[..., Any], rules: str, identity: str, dry_run: bool
) -> None:
    here = house()
    here.rule(rules)
    with pytest.raises(NoDecisionError) as error:
        await here.ask(asked_by(here, identity, "cat", dry_run=dry_run))
    assert error.value.reason is ErrorReason.PERMISSION_DENIED
    assert error.value.metadata == {"field": "concept_ids"}
    assert "restrict.callers" in error.value.remedy
    assert here.engine.audits == here.recorded() == 0


async def test_who_may_not_restrict_does_not_learn_which_concepts_there_are(
    house: Callable[..., Any],
) -> None:
    here = house()
    here.rule(TRUSTED)
    with pytest.raises(NoDecisionError) as error:
        await here.ask(asked_by(here, "image-api", "unicorn"))
    assert error.value.reason is ErrorReason.PERMISSION_DENIED


@pytest.mark.parametrize("identity", ["research", "spiffe://prod/audit"])
async def test_a_restricted_answer_never_binds_and_the_record_says_so(
    house: Callable[..., Any], identity: str
) -> None:
    here = house()
    here.rule(TRUSTED)
    verdict = await here.ask(asked_by(here, identity, "dog", "cat", "dog"))
    assert verdict.decision.verdict is VerdictKind.ALLOW
    assert not verdict.binding
    assert verdict.decision.evidence.restricted_to == ("cat", "dog")
    assert verdict.decision.reasons[-1].code == "restricted_question"
    line = json.loads(here.log_path.read_text().splitlines()[-1])
    assert line["binding"] is False
    written = parse_verdict(json.dumps(line["verdict"]))
    assert written.decision.evidence.restricted_to == ("cat", "dog")
    assert not written.binding
    assert not here.recorder.get(verdict.decision_id).binding


async def test_the_answer_to_a_restricted_question_is_no_answer_to_the_whole_one(
    house: Callable[..., Any],
) -> None:
    here = house()
    here.rule(TRUSTED)
    restricted = await here.ask(asked_by(here, "research", "cat", "dog"))
    whole = await here.ask(asked_by(here, "research"))
    assert not restricted.binding
    assert whole.binding
    assert not whole.cached
    assert here.engine.audits == 2


async def test_a_cached_restricted_answer_is_given_only_to_those_who_may_ask(
    house: Callable[..., Any],
) -> None:
    here = house()
    here.rule(TRUSTED)
    await here.ask(asked_by(here, "research", "cat"))
    assert (await here.ask(asked_by(here, "research", "cat"))).cached
    with pytest.raises(NoDecisionError):
        await here.ask(asked_by(here, "image-api", "cat"))


async def test_a_caller_that_is_struck_off_while_its_question_waits_gets_no_answer(
    house: Callable[..., Any],
) -> None:
    here = house()
    here.rule(TRUSTED)
    here.engine.hold()
    asked = here.ask(asked_by(here, "research", "cat"))
    await here.engine.has_started()
    here.rule(RULES)
    here.engine.let_go()
    with pytest.raises(NoDecisionError) as error:
        await asked
    assert error.value.reason is ErrorReason.PERMISSION_DENIED
    assert here.recorded() == 0


async def test_nobody_reviews_what_a_restricted_question_suspects(
    house: Callable[..., Any],
) -> None:
    here = house()
    here.rule(TRUSTED)
    here.engine.score = SUSPICIOUS
    restricted = await here.ask(asked_by(here, "research", "cat"))
    whole = await here.ask(asked_by(here, "research"))
    assert restricted.decision.verdict is whole.decision.verdict is VerdictKind.REVIEW
    with here.recorder.database.reading() as connection:
        rows = dict(connection.exec_driver_sql("SELECT decision_id, subject_key FROM audits").all())
    assert rows[restricted.decision_id] is None
    assert rows[whole.decision_id] is not None


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_question_about_everything_is_not_marked(
    house: Callable[..., Any], dry_run: bool
) -> None:
    here = house()
    verdict = await here.ask(here.request(dry_run=dry_run))
    assert verdict.decision.evidence.restricted_to == ()
    assert verdict.binding is not dry_run
    assert "restricted_question" not in {one.code for one in verdict.decision.reasons}


async def test_the_miss_rate_by_which_an_audit_ended_early_is_on_record(
    house: Callable[..., Any],
) -> None:
    here = house()
    here.rule(RULES + "screen_miss_rate: 0.25\n")
    verdict = await here.ask()
    written = here.recorder.get(verdict.decision_id).decision.evidence
    assert written.screen_miss_rate == 0.25
    assert here.engine.miss_rates == [0.25]
