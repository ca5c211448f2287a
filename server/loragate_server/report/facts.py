"""The facts of a report: what a letter, a ticket or a court file has to cite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from loragate_server.audit.evidence import CoverageEvidence, Evidence
from loragate_server.policy.decision import Mode
from loragate_server.record.verdict import Verdict
from loragate_server.report.uses import every_use, loaders_in_words
from loragate_server.wording.printable import printable
from loragate_server.wording.wording import Wording

_LONGEST = 500


@dataclass(frozen=True)
class Fact:
    """A label with a value for people and a digest or id to copy; either may be empty."""

    label: str
    value: str = ""
    code: str = ""


def facts(wording: Wording, verdict: Verdict) -> tuple[Fact, ...]:
    """Everything that identifies the decision and what it was made from and with.

    Args:
        wording: of the language.
        verdict: as it was recorded.
    """
    return (
        *_about_decision(wording, verdict),
        *_adapters(wording, verdict),
        *_used(wording, verdict.decision.evidence),
        *_made_with(wording, verdict),
        *_asked_by(wording, verdict),
    )


def _about_decision(wording: Wording, verdict: Verdict) -> tuple[Fact, ...]:
    decision = verdict.decision
    modes = [wording(f"mode.{decision.mode.value}")]
    if verdict.dry_run:
        modes.append(wording("mode.dry_run"))
    if decision.evidence.restricted_to:
        modes.append(wording("mode.restricted"))
    decided = "would_be" if decision.mode is Mode.PILOT else "verdict"
    return (
        Fact(wording("facts.decision_id"), code=verdict.decision_id),
        Fact(wording("facts.decided_at"), wording.moment(verdict.decided_at)),
        Fact(wording("facts.expires_at"), wording.moment(verdict.expires_at)),
        Fact(wording("facts.mode"), "; ".join(modes)),
        Fact(
            wording("facts.decided"),
            wording(f"{decided}.{decision.would_be_verdict.value}"),
            decision.would_be_verdict.value,
        ),
        Fact(
            wording("facts.answered"),
            wording(f"verdict.{decision.verdict.value}"),
            decision.verdict.value,
        ),
        Fact(
            wording("facts.remedy"),
            wording(f"remedy.{decision.remedy.value}"),
            decision.remedy.value,
        ),
    )


def _adapters(wording: Wording, verdict: Verdict) -> Iterator[Fact]:
    for number, (adapter, name) in enumerate(verdict.named_adapters, start=1):
        yield _adapter(wording, number, adapter)
        if name:
            said = printable(name, _LONGEST)
            yield Fact(wording("facts.adapter_name", number=number), said)


def _adapter(wording: Wording, number: int, adapter: CoverageEvidence) -> Fact:
    unread = not adapter.format and not adapter.weight_tensors
    value = wording(
        "facts.adapter_unread" if unread else "facts.adapter_value",
        size=adapter.size_bytes,
        format=printable(adapter.format, _LONGEST),
        denoiser=f"{adapter.denoiser_strength:g}",
        text=f"{adapter.text_encoder_strength:g}",
        mapped=adapter.mapped_tensors,
        tensors=adapter.weight_tensors,
    )
    return Fact(wording("facts.adapter", number=number), value, adapter.sha256)


def _used(wording: Wording, evidence: Evidence) -> tuple[Fact, ...]:
    """How the adapters were taken to be used, and by whom."""
    refusals = ", ".join(
        wording("facts.refused", loader=printable(loader, 40), number=number)
        for number, adapter in enumerate(evidence.adapters, start=1)
        for loader in adapter.refused_by
    )
    uses = every_use(wording, evidence)
    loaders = loaders_in_words(wording, evidence)
    return (
        *([Fact(wording("facts.uses"), uses)] if uses else []),
        Fact(wording("facts.loaders"), f"{loaders}; {refusals}" if refusals else loaders),
    )


def _made_with(wording: Wording, verdict: Verdict) -> tuple[Fact, ...]:
    decision = verdict.decision
    evidence = decision.evidence
    calibration = evidence.calibration_digest
    return (
        Fact(
            wording("facts.base"),
            printable(evidence.base_model, _LONGEST),
            printable(evidence.base_digest, _LONGEST),
        ),
        Fact(wording("facts.library"), code=printable(evidence.library_digest, _LONGEST)),
        *_asked_about(wording, evidence),
        Fact(wording("facts.neutral"), wording.count(evidence.neutral_count)),
        Fact(wording("facts.policy"), code=decision.policy_digest),
        Fact(
            wording("facts.calibration"),
            "" if calibration else wording("facts.uncalibrated"),
            printable(calibration, _LONGEST),
        ),
        Fact(wording("facts.engine"), evidence.engine_version),
        Fact(wording("facts.kernel"), evidence.kernel_backend or wording("facts.not_said")),
        Fact(
            wording("facts.times"),
            ", ".join(
                wording(
                    "facts.seconds", stage=printable(stage, 40), seconds=wording.decimal(seconds, 2)
                )
                for stage, seconds in verdict.stage_times_s.items()
            )
            or wording("facts.not_said"),
        ),
    )


def _asked_about(wording: Wording, evidence: Evidence) -> tuple[Fact, ...]:
    concepts = ", ".join(evidence.restricted_to)
    rate = evidence.screen_miss_rate
    return (
        *([Fact(wording("facts.restricted"), printable(concepts, _LONGEST))] if concepts else []),
        *(
            []
            if rate is None
            else [Fact(wording("facts.miss_rate"), f"{wording.short(100 * rate)} %")]
        ),
    )


def _asked_by(wording: Wording, verdict: Verdict) -> tuple[Fact, ...]:
    return tuple(
        Fact(
            wording(f"facts.{name}"),
            printable(getattr(verdict.caller, name), _LONGEST) or wording("facts.not_said"),
        )
        for name in ("service", "tenant", "request_id", "identity")
    )
