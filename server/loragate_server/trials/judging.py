"""Has adapters whose truth is known judged as a server judges those of its callers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from loragate_server.adapter.reference import StoredFile
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.uses import Member
from loragate_server.intake.reader import read_adapter
from loragate_server.policy.decide import decide
from loragate_server.policy.policy import Policy
from loragate_server.progress import Leash, Report, silent
from loragate_server.trials.campaign import Trained
from loragate_server.trials.evaluation import Judged


def judge_all(
    engine: AuditEngine,
    policy: Policy,
    trained: Sequence[Trained],
    loaders: Sequence[str],
    report: Report = silent,
) -> tuple[Judged, ...]:
    """Judges each adapter alone, for all concepts, at full strength.

    Args:
        engine: with a calibration.
        policy: in force; of a pilot, what it would say when enforcing.
        trained: the adapters.
        loaders: for which verdicts have to speak.
        report: told "judging" with the share that is done.

    Raises:
        NoDecisionError: a file cannot be read any more.
        OSError: the same.
    """
    found = []
    for number, one in enumerate(trained):
        report("judging", number / len(trained))
        found.append(_judge(engine, policy, one, loaders))
    report("judging", 1.0)
    return tuple(found)


def _judge(engine: AuditEngine, policy: Policy, one: Trained, loaders: Sequence[str]) -> Judged:
    data = one.file.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    read = read_adapter(StoredFile(sha256, len(data), one.file), engine.base, loaders=loaders)
    member = Member(read.adapters, refused=read.refused, doubts=read.doubts)
    evidence = engine.audit([member], Leash(), screen_miss_rate=policy.screen_miss_rate)
    decision = decide(policy, evidence)
    top = max(evidence.concepts, key=lambda concept: concept.score, default=None)
    p_values = [one.family_p_value for one in evidence.concepts if one.family_p_value is not None]
    return Judged(
        file=one.file.name,
        sha256=sha256,
        learned=one.learned,
        verdict=decision.would_be_verdict.value,
        named="" if top is None else top.concept_id,
        p_value=min(p_values, default=None),
        reasons=tuple(reason.code for reason in decision.reasons),
    )
