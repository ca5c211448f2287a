"""Nothing is decided unless every required device has the line."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from loragate_server.config.devices import AuditDevice, FileTarget, OtlpTarget, SyslogTarget
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import (
    Decision,
    Finding,
    Reason,
    Remedy,
    VerdictKind,
)
from loragate_server.record.devices.devices import Devices
from loragate_server.record.devices.position import save_position
from loragate_server.record.log import DecisionLog
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.review import ReviewAction
from loragate_server.record.reviews.reviews import ReviewRules, Reviews
from loragate_server.record.verdict import Caller
from testkit import evidence as made
from testkit.audit_receivers import log_collector, syslog_receiver
from testkit.waiting import eventually
from tests.server.devices.logs import lines_of, record

LIMIT_S = 20.0
Recording = Callable[..., Recorder]


def required(name: str = "siem", **target: object) -> AuditDevice:
    return AuditDevice.model_validate({"name": name, "required": True, **target})


def tcp(port: int) -> SyslogTarget:
    return SyslogTarget(address=f"tcp://127.0.0.1:{port}")


def ready(recorder: Recorder) -> bool:
    try:
        recorder.check()
    except NoDecisionError:
        return False
    return True


def refused(recorder: Recorder) -> NoDecisionError:
    with pytest.raises(NoDecisionError) as caught:
        record(recorder)
    assert caught.value.reason is ErrorReason.DECISION_LOG_UNAVAILABLE
    return caught.value


def test_a_decision_is_at_the_device_before_anybody_is_answered(recording: Recording) -> None:
    with syslog_receiver() as receiver:
        recorder = recording(required(syslog=tcp(receiver.port)))
        assert eventually(lambda: ready(recorder), LIMIT_S)
        for number in range(1, 6):
            verdict = record(recorder)
            # The receiver's machine has it; its program reads it a moment later.
            assert eventually(lambda n=number: len(receiver.received) == n, LIMIT_S, every_s=0.001)  # type: ignore[misc]
            assert receiver.received[-1].entry["verdict"]["decision_id"] == verdict.decision_id


def test_a_device_that_was_never_reached_lets_nothing_be_decided(recording: Recording) -> None:
    recorder = recording(required(syslog=tcp(1)))
    error = refused(recorder)
    assert "siem" in error.message
    assert error.metadata == {"device": "siem"}
    assert "bring the device back" in error.remedy
    assert recorder.list()[0] == []


def test_a_device_that_goes_away_stops_decisions_until_it_is_back(
    recording: Recording, tmp_path: Path
) -> None:
    with syslog_receiver() as receiver:
        port = receiver.port
        recorder = recording(required(syslog=tcp(port), timeout_s=1.0))
        assert eventually(lambda: ready(recorder), LIMIT_S)
        first = record(recorder)
    error = refused(recorder)
    assert f"tcp://127.0.0.1:{port}" in error.message or "no answer" in error.message
    assert eventually(lambda: not ready(recorder), LIMIT_S)
    refused(recorder)
    assert [one.decision_id for one in recorder.list()[0]] == [first.decision_id]
    with syslog_receiver(port) as receiver:
        assert eventually(lambda: ready(recorder), LIMIT_S)
        last = record(recorder)
        assert [one.decision_id for one in recorder.list()[0]] == [
            last.decision_id,
            first.decision_id,
        ]
        notes = [one.entry["note"] for one in receiver.received if one.kind == "note"]
        logged = [json.loads(line) for line in lines_of(tmp_path / "replica0" / "decisions.jsonl")]
    # Refused before it was written at the second time: the log is not filled by a device.
    unanswered = [one["note"]["decision_id"] for one in logged if one["kind"] == "note"]
    assert len(unanswered) <= 1
    assert [one["code"] for one in notes] == ["not_answered"] * len(unanswered)


def test_a_collector_has_to_accept_every_record(recording: Recording) -> None:
    with log_collector() as collector:
        recorder = recording(required(otlp=OtlpTarget(endpoint=collector.address), timeout_s=1.0))
        assert eventually(lambda: ready(recorder), LIMIT_S)
        verdict = record(recorder)
        assert collector.received[-1].entry["verdict"]["decision_id"] == verdict.decision_id
        assert collector.received[-1].head == {"event": "loragate.decision", "severity": "NOTICE"}
        assert collector.resource["service.name"] == "loragate"
        collector.refuses = 1
        assert "1 lines were refused: too many" in refused(recorder).message
        collector.refuses = 0
        assert eventually(lambda: ready(recorder), LIMIT_S)
        record(recorder)


def test_a_file_on_a_full_disk_lets_nothing_be_decided_until_there_is_room(
    recording: Recording, small_disk: Path, fill_disk: Callable[[Path], Path]
) -> None:
    target = FileTarget(path=small_disk / "second.jsonl")
    recorder = recording(required("second", file=target, timeout_s=1.0))
    assert eventually(lambda: ready(recorder), LIMIT_S)
    record(recorder)
    ballast = fill_disk(small_disk)
    assert "No space left on device" in refused(recorder).message
    ballast.unlink()
    assert eventually(lambda: ready(recorder), LIMIT_S)
    record(recorder)
    log = small_disk.parent / "replica0" / "decisions.jsonl"
    assert target.path.read_bytes().splitlines() == lines_of(log)


def test_one_of_two_required_devices_is_enough_to_stop(recording: Recording) -> None:
    with syslog_receiver() as receiver, log_collector() as collector:
        recorder = recording(
            required("siem", syslog=tcp(receiver.port), timeout_s=1.0),
            required("lake", otlp=OtlpTarget(endpoint=collector.address), timeout_s=1.0),
        )
        assert eventually(lambda: ready(recorder), LIMIT_S)
        record(recorder)
        collector.refuses = 1
        assert "audit device lake" in refused(recorder).message


def test_a_device_that_is_not_required_stops_nothing(recording: Recording) -> None:
    recorder = recording(AuditDevice(name="siem", syslog=tcp(1)))
    began = time.monotonic()
    record(recorder)
    assert time.monotonic() - began < LIMIT_S
    recorder.check()


def test_replicas_each_bring_their_own_log_to_one_receiver(
    recording: Recording, tmp_path: Path
) -> None:
    with syslog_receiver() as receiver:
        replicas = [recording(required(syslog=tcp(receiver.port))) for _ in range(2)]
        for one in replicas:
            assert eventually(lambda one=one: ready(one), LIMIT_S)  # type: ignore[misc]
        for one in itertools.chain(*zip(*[replicas] * 5, strict=True)):
            record(one)
        assert eventually(lambda: len(receiver.received) == 10, LIMIT_S)
        came = [one.line for one in receiver.received]
    for number in range(2):
        lines = lines_of(tmp_path / f"replica{number}" / "decisions.jsonl")
        assert [one for one in came if one in set(lines)] == lines


def test_a_receiver_that_takes_nothing_in_is_not_waited_for_without_end(
    recording: Recording,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        recorder = recording(required(syslog=tcp(server.getsockname()[1]), timeout_s=1.0))
        assert eventually(lambda: ready(recorder), LIMIT_S)
        server.close()
        began = time.monotonic()
        refused(recorder)
        assert time.monotonic() - began < LIMIT_S


def test_a_review_counts_only_when_the_device_has_it(recording: Recording) -> None:
    with syslog_receiver() as receiver:
        port = receiver.port
        recorder = recording(required(syslog=tcp(port), timeout_s=1.0))
        assert eventually(lambda: ready(recorder), LIMIT_S)
        suspected = recorder.record(_suspected(), Caller("images"), stage_times_s={})
        reviews = Reviews(
            recorder, ReviewRules(frozenset(), timedelta(days=7)), told=lambda _: None
        )
        until = datetime.now(UTC) + timedelta(days=1)
        said: dict[str, Any] = {
            "reviewer": "alice",
            "reason": "fine",
            "position": 0,
            "expires_at": until,
        }
    with pytest.raises(NoDecisionError, match="audit device siem"):
        reviews.act(suspected.decision_id, ReviewAction.APPROVE, **said)
    with syslog_receiver(port) as receiver:
        assert eventually(lambda: ready(recorder), LIMIT_S)
        reviews.act(suspected.decision_id, ReviewAction.APPROVE, **said)
        assert eventually(lambda: receiver.received[-1].kind == "review", LIMIT_S)


def _suspected() -> Decision:
    concept = made.concept(4.0, 0.01, severity="low")
    found = made.evidence(concept, adapters=(made.adapter(),))
    return made.decision(
        VerdictKind.REVIEW,
        found,
        reasons=(Reason("concept_suspected", "It may have learned 'Cat'."),),
        findings=(Finding(concept, VerdictKind.REVIEW, Remedy.QUARANTINE),),
    )


def test_lines_that_were_lost_before_the_start_hold_up_no_later_decision(tmp_path: Path) -> None:
    path, folder = tmp_path / "decisions.jsonl", tmp_path / "devices"
    second = required("second", file=FileTarget(path=tmp_path / "second.jsonl"))
    begun = DecisionLog(path)
    begun.append_note({"x": 1})
    save_position(folder, "second", begun.last)
    path.unlink()
    for number in range(9):
        begun.append_note({"x": number})
        if number == 7:
            path.unlink()  # lines 2 to 9 are gone
    begun.close()
    devices = Devices((second,), folder, path)
    log = DecisionLog(path, wrote=devices.wrote)
    devices.begin(log.last)
    try:
        devices.require_taken(log.append_note({"x": "new"}))
    finally:
        log.close()
        devices.close()
    assert lines_of(tmp_path / "second.jsonl") == lines_of(path)
