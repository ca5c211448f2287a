"""What the worker does about a question: reads its adapters, and audits it alone or with others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, replace
from typing import Protocol

from loragate_server.adapter.adapter import Readings
from loragate_server.adapter.reference import Kind, StoredFile, Strength
from loragate_server.audit.evidence import Evidence
from loragate_server.audit.sketch import sketches_of
from loragate_server.audit.uses import Member
from loragate_server.gate.bases import BaseRegistry, ServedBase
from loragate_server.gate.case import Case
from loragate_server.gate.job import off_device
from loragate_server.models.base import BaseModel
from loragate_server.policy.policy import Policy
from loragate_server.progress import Leash
from loragate_server.tracing.tracer import stage, took


class ReadAdapter(Protocol):
    """`loragate_server.intake.reader.read_adapter`."""

    def __call__(
        self, stored: StoredFile, base: BaseModel, leash: Leash, *, kind: Kind
    ) -> Readings:
        """Makes an adapter of a stored file, which was sent as one of a kind."""


@dataclass(frozen=True)
class Look:
    """A question whose adapters have been read.

    Attributes:
        sketches: of each adapter.
        context: of whoever asks.
    """

    question: Question
    served: ServedBase
    members: Sequence[Member]
    sketches: Sequence[tuple[bytes, ...]]
    context: Context


@dataclass(frozen=True)
class Question:
    """One case on its way through the worker.

    Attributes:
        policy: says how early an audit may stop.
        leash: of whoever waits.
        times_s: takes what each stage took.
        queued_monotonic_s: when it began to wait.
    """

    bases: BaseRegistry
    read: ReadAdapter
    case: Case
    policy: Policy
    leash: Leash
    times_s: dict[str, float]
    queued_monotonic_s: float

    def look(self) -> Look:
        """Reads the adapters.

        Raises:
            NoDecisionError: whatever the reader refuses, and CONCEPT_UNKNOWN.
        """
        began, case = time.monotonic(), self.case
        self.times_s["queued"] = began - self.queued_monotonic_s
        took("queued", self.times_s["queued"])
        self.leash.report("queued", 1.0)
        # Asked for now, not when the case was queued: the library may have changed since.
        served = self.bases.get(case.request.base_model)
        served.require_concepts(case.request.concept_ids)
        members = []
        with stage("read"), off_device():
            for file, one in zip(case.files, case.request.adapters, strict=True):
                self.leash.check()
                read = self.read(file, served.base, self.leash, kind=one.kind)
                members.append(member_of(read, one.strengths, optional=one.optional))
        self.times_s["read"] = time.monotonic() - began
        self.leash.check()
        sketches = sketches_of(served.base, members)
        return Look(self, served, members, sketches, copy_context())

    def told(self, look: Look, evidence: Evidence) -> Evidence:
        """The engine's evidence with what only the question knows; takes the times down."""
        self.times_s.update(evidence.stage_times_s)
        look.context.run(_trace_engine, evidence.stage_times_s)
        evidence = with_files(evidence, look.sketches, self.case.files)
        return asked_about(evidence, self.case.restricted_to, self.policy.screen_miss_rate)


def measured(look: Look) -> Evidence:
    """Audits one question, however long it takes.

    Raises:
        NoDecisionError: whatever the engine refuses.
    """
    question = look.question
    evidence = look.served.engine.audit(
        look.members,
        question.leash,
        question.case.request.concept_ids,
        screen_miss_rate=question.policy.screen_miss_rate,
    )
    return question.told(look, evidence)


def first_looks(looks: Sequence[Look]) -> list[Evidence | None]:
    """Audits questions that are alike in all but their adapters, at once.

    Each gets the evidence of `measured`, to the last bit; None where that takes forward passes.

    Raises:
        NoDecisionError: whatever the engine refuses.
        RuntimeError: the library has changed between two of them.
    """
    first, served = looks[0].question, looks[0].served
    if any(look.served is not served for look in looks):
        raise RuntimeError("the concept library has changed meanwhile")

    def report(name: str, fraction: float) -> None:
        for look in looks:
            look.question.leash.report(name, fraction)

    found = served.engine.first_look(
        [look.members for look in looks],
        Leash(report=report),
        first.case.request.concept_ids,
        screen_miss_rate=first.policy.screen_miss_rate,
    )
    return [
        None if evidence is None else look.question.told(look, evidence)
        for look, evidence in zip(looks, found, strict=True)
    ]


def with_files(
    evidence: Evidence, sketches: Sequence[tuple[bytes, ...]], files: Sequence[StoredFile]
) -> Evidence:
    """The evidence with what is known of each adapter's file without an audit."""
    adapters = tuple(
        replace(one, sketches=made, weights_sha256=file.weights_sha256)
        for one, made, file in zip(evidence.adapters, sketches, files, strict=True)
    )
    return replace(evidence, adapters=adapters)


def asked_about(
    evidence: Evidence, restricted_to: tuple[str, ...], screen_miss_rate: float
) -> Evidence:
    """The evidence with what the question and the policy had asked for."""
    return replace(evidence, restricted_to=restricted_to, screen_miss_rate=screen_miss_rate)


def member_of(read: Readings, strengths: Sequence[Strength], *, optional: bool) -> Member:
    """What the engine is given of an adapter that was read."""
    return Member(
        read.adapters,
        tuple(strengths),
        optional=optional,
        refused=read.refused,
        doubts=read.doubts,
    )


def _trace_engine(times_s: Mapping[str, float]) -> None:
    """Adds the stages of an audit that has just ended; the engine knows nothing of traces."""
    response_s = times_s.get("response", 0.0)
    if times_s.get("screen"):
        took("screen", times_s["screen"], ended_ago_s=response_s)
    if response_s:
        took("response", response_s)
