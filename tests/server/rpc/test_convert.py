"""Names on the wire and names in the server say the same."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from loragate.v1 import audit_pb2 as wire
from loragate.v1 import error_reason_pb2
from loragate_server.adapter.reference import Strength
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import (
    Finding,
    LeftOut,
    MeasureKind,
    Mode,
    Reason,
    Remedy,
    VerdictKind,
)
from loragate_server.record.verdict import Verdict
from loragate_server.rpc.convert import (
    MAX_CALLER_LETTERS,
    adapter_reference,
    audit_request,
    filters_of,
    severity_name,
    verdict_message,
)
from loragate_server.rpc.errors import CODES
from testkit import evidence as made

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def names(enum: object, prefix: str) -> set[str]:
    """Value names of a wire enum, without prefix and the unset one."""
    keys = enum.keys()  # type: ignore[attr-defined]
    return {key.removeprefix(prefix) for key in keys} - {"UNSPECIFIED"}


def test_every_reason_is_on_the_wire_and_has_a_status_code() -> None:
    assert names(error_reason_pb2.ErrorReason, "ERROR_REASON_") == set(ErrorReason)
    assert set(CODES) == set(ErrorReason)


def test_verdicts_modes_and_remedies_are_the_same_sets() -> None:
    assert names(wire.VerdictKind, "VERDICT_KIND_") == set(VerdictKind)
    assert names(wire.Mode, "MODE_") == set(Mode)
    assert names(wire.Remedy, "REMEDY_") == set(Remedy)
    assert names(wire.MeasureKind, "MEASURE_KIND_") == set(MeasureKind)
    severities = {severity_name(each) for each in ("low", "medium", "high", "critical")}
    assert severities == set(wire.Severity.keys()) - {"SEVERITY_UNSPECIFIED"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Strength(1.0, 1.0)),
        ({"denoiser_strength": 0.5}, Strength(0.5, 0.5)),
        ({"text_encoder_strength": 0.0}, Strength(1.0, 0.0)),
        ({"denoiser_strength": 0.0, "text_encoder_strength": 0.7}, Strength(0.0, 0.7)),
    ],
)
def test_a_strength_that_is_not_set_is_not_zero(
    fields: dict[str, float], expected: Strength
) -> None:
    assert adapter_reference(wire.AdapterReference(**fields)).strength == expected


def test_a_kind_that_is_not_set_is_a_lora() -> None:
    assert names(wire.AdapterKind, "ADAPTER_KIND_") == {"LORA", "EMBEDDING"}
    found = [adapter_reference(wire.AdapterReference(kind=kind)).kind for kind in (0, 1, 2)]  # type: ignore[arg-type]
    assert found == ["lora", "lora", "embedding"]


def test_a_kind_of_a_newer_client_is_refused() -> None:
    with pytest.raises(NoDecisionError, match="no kind of adapter 9") as caught:
        adapter_reference(wire.AdapterReference(kind=9))  # type: ignore[arg-type]
    assert caught.value.reason is ErrorReason.REQUEST_INVALID


SOURCES = ("path", "uri", "inline_bytes", "stored_sha256")


@pytest.mark.parametrize("source", SOURCES)
def test_an_empty_source_is_a_source(source: str) -> None:
    empty = b"" if source == "inline_bytes" else ""
    reference = adapter_reference(wire.AdapterReference(**{source: empty}))  # type: ignore[arg-type]
    given = {name: getattr(reference, name) for name in SOURCES}
    assert [name for name, value in given.items() if value is not None] == [source]


def test_a_caller_cannot_fill_the_log() -> None:
    long = wire.AuditRequest(caller=wire.CallerContext(tenant="x" * (MAX_CALLER_LETTERS + 1)))
    with pytest.raises(NoDecisionError, match=r"caller\.tenant has 257 letters") as caught:
        audit_request(long)
    assert caught.value.metadata["field"] == "caller.tenant"


def test_a_caller_cannot_pass_for_a_scan_of_a_catalogue() -> None:
    for request_id in (f"{'0' * 16}/", f"{'A' * 16}/{'b' * 64}"):
        asked = wire.CallerContext(service="catalogue", request_id=request_id)
        with pytest.raises(NoDecisionError, match="stands for a scan") as caught:
            audit_request(wire.AuditRequest(caller=asked))
        assert caught.value.metadata["field"] == "caller.request_id"
    own = wire.CallerContext(service="catalogue", request_id="order 66/1")
    assert audit_request(wire.AuditRequest(caller=own)).caller.request_id == "order 66/1"


def test_a_list_is_restricted_to_what_is_asked_for() -> None:
    assert not any(filters_of(wire.ListAuditsRequest()).values())
    asked = wire.ListAuditsRequest(
        adapter_sha256="a" * 64,
        verdict=wire.VERDICT_KIND_BLOCK,
        service="gallery",
        base_model="tiny",
        decided_since=Timestamp(seconds=0),
    )
    asked.decided_before.FromDatetime(NOW)
    assert filters_of(asked) == {
        "verdict": VerdictKind.BLOCK,
        "adapter_sha256": "a" * 64,
        "service": "gallery",
        "base_model": "tiny",
        "since": datetime(1970, 1, 1, tzinfo=UTC),
        "until": NOW,
    }


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (wire.ListAuditsRequest(verdict=77), "verdict"),  # type: ignore[arg-type]
        (wire.ListAuditsRequest(decided_since=Timestamp(seconds=1 << 60)), "decided_since"),
        (wire.ListAuditsRequest(decided_before=Timestamp(nanos=-1)), "decided_before"),
    ],
)
def test_a_filter_that_can_hold_of_nothing_is_named(
    asked: wire.ListAuditsRequest, field: str
) -> None:
    with pytest.raises(NoDecisionError) as caught:
        filters_of(asked)
    assert caught.value.reason is ErrorReason.REQUEST_INVALID
    assert caught.value.metadata["field"] == field


def verdict() -> Verdict:
    bomb = made.concept(
        7.5, 1e-9, concept_id="bomb", concept_name="bomb", category="harm", severity="critical",
        degree=42.0, error_change_by_time={"0.16": -0.2},
    )  # fmt: skip
    coverage = made.adapter(
        size_bytes=123, format="kohya/lora", denoiser_strength=0.5, text_encoder_strength=0.25,
        weight_tensors=30, mapped_tensors=20, matched_modules=10, unmapped=("x",) * 30,
    )  # fmt: skip
    decision = made.decision(
        VerdictKind.ALLOW,
        made.evidence(
            bomb,
            adapters=(coverage,),
            neutral_count=48,
            loaders=("diffusers", "comfyui"),
            restricted_to=("bomb",),
        ),
        would_be_verdict=VerdictKind.BLOCK,
        mode=Mode.PILOT,
        remedy=Remedy.WITHDRAW_AND_CALL_LEGAL,
        reasons=(Reason("concept_learned", "It has learned a bomb."),),
        findings=(Finding(bomb, VerdictKind.BLOCK, Remedy.WITHDRAW_AND_CALL_LEGAL),),
    )
    return made.verdict(
        decision,
        decision_id="id-1",
        stage_times_s={"response": 1.25},
        cached=True,
        envelope=b"{}",
    )


def test_a_verdict_goes_out_whole() -> None:
    message = verdict_message(verdict(), scores=True)
    assert message.verdict == wire.VERDICT_KIND_ALLOW
    assert message.would_be_verdict == wire.VERDICT_KIND_BLOCK
    assert message.mode == wire.MODE_PILOT
    assert message.remedy == wire.REMEDY_WITHDRAW_AND_CALL_LEGAL
    assert message.findings[0].severity == wire.SEVERITY_CRITICAL
    assert (message.findings[0].score, message.findings[0].degree) == (7.5, 42.0)
    assert len(message.adapters[0].coverage.unmapped) == 20
    assert message.digests.policy == "d" * 64
    assert message.stage_times[0].duration.ToMilliseconds() == 1250
    assert message.decided_at.ToDatetime(tzinfo=UTC) == NOW
    assert message.cached
    assert message.dsse_envelope == b"{}"
    unset = {field.name for field in message.DESCRIPTOR.fields} - {
        field.name for field, _ in message.ListFields()
    }
    assert unset == {"dry_run", "left_out"}
    assert not message.binding
    assert list(message.restricted_to_concept_ids) == ["bomb"]
    assert list(message.loaders) == ["diffusers", "comfyui"]
    assert list(message.findings[0].adapter_sha256s) == ["a" * 64]
    assert message.findings[0].use == ("Adapter aaaaaaaaaaaa at strength 0.5 (text encoders 0.25)")
    again = verdict_message(dataclasses.replace(verdict(), dry_run=True), scores=True)
    assert again.dry_run


def test_a_million_adapters_are_counted_before_they_are_read() -> None:
    message = wire.AuditRequest.FromString(b"\x0a\x00" * 1_000_000)
    with pytest.raises(NoDecisionError, match="1000000 adapters"):
        audit_request(message)


def many(left: LeftOut) -> Verdict:
    """A decision about a large library, which tells what it blocks and what comes next."""
    learned, nearest = (
        made.concept(9.0, 1e-9, concept_id="cat"),
        made.concept(2.0, concept_id="elk"),
    )
    findings = (
        Finding(learned, VerdictKind.BLOCK, Remedy.QUARANTINE),
        Finding(nearest, VerdictKind.ALLOW, Remedy.NONE),
    )
    decision = made.decision(VerdictKind.BLOCK, made.evidence(learned, nearest))
    return made.verdict(dataclasses.replace(decision, findings=findings, left_out=left))


def test_the_answer_says_how_many_findings_it_does_not_hold() -> None:
    told = verdict_message(many(LeftOut(4998, 1.5, 20, 5.0)), scores=True)
    assert [one.concept_id for one in told.findings] == ["cat", "elk"]
    assert (told.left_out.count, told.left_out.highest_score) == (4998, 1.5)
    assert not verdict_message(made.verdict(), scores=True).HasField("left_out")


def test_who_may_not_see_scores_does_not_learn_which_concepts_score_highest() -> None:
    told = verdict_message(many(LeftOut(4998, 1.5, 20, 5.0)), scores=False)
    assert [one.concept_id for one in told.findings] == ["cat"]
    assert told.left_out.count == 4999
    assert not told.left_out.HasField("highest_score")
