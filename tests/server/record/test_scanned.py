"""Which decisions on record are those of a scan, that it need not make again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from loragate_server.record import scanned as record_of_scans
from loragate_server.record.recorder import Recorder
from loragate_server.record.scanned import request_id, scanned
from loragate_server.record.verdict import SCAN_SERVICE, Caller
from testkit import evidence as made

SCAN = "0123456789abcdef"
POLICY = made.decision().policy_digest


def recorded(recorder: Recorder, caller: Caller, *, dry_run: bool = False, **facts: Any) -> str:
    """The id of a decision over one concept, with these facts about its evidence."""
    decision = made.decision(found=made.evidence(made.concept(), **facts))
    return recorder.record(decision, caller, stage_times_s={}, dry_run=dry_run).decision_id


def test_a_decision_of_the_scan_is_found_by_the_key_of_its_file(recorder: Recorder) -> None:
    plain = recorded(recorder, Caller(SCAN_SERVICE, request_id=request_id(SCAN, "")))
    scaled = recorded(recorder, Caller(SCAN_SERVICE, request_id=request_id(SCAN, "f" * 64)))
    found = scanned(recorder.database, SCAN, POLICY)
    assert found == {"a" * 64: plain, f"{'a' * 64}.{'f' * 64}": scaled}


@pytest.mark.parametrize(
    "facts",
    [
        {"adapters": (made.adapter(denoiser_strength=0.0),)},
        {"adapters": (made.adapter(text_encoder_strength=0.5),)},
        {"adapters": (made.adapter(), made.adapter("b" * 64))},
        {"restricted_to": ("cat",)},
        {"dry_run": True},
    ],
)
def test_the_answer_to_another_question_is_none_of_the_scan_under_its_name_either(
    recorder: Recorder, facts: dict[str, Any]
) -> None:
    recorded(recorder, Caller(SCAN_SERVICE, request_id=request_id(SCAN, "")), **facts)
    assert scanned(recorder.database, SCAN, POLICY) == {}


@pytest.mark.parametrize("who", [{"identity": "CN=shop"}, {"tenant": "someone"}])
def test_what_somebody_else_asked_is_none_of_the_scan(
    recorder: Recorder, who: dict[str, str]
) -> None:
    recorded(recorder, Caller(SCAN_SERVICE, request_id=request_id(SCAN, ""), **who))
    assert scanned(recorder.database, SCAN, POLICY) == {}


def test_a_decision_that_has_expired_is_made_again(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(recorder, Caller(SCAN_SERVICE, request_id=request_id(SCAN, "")))
    assert scanned(recorder.database, SCAN, POLICY)
    later = datetime.now(UTC) + timedelta(days=367)  # the longest that a verdict may hold, and one

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return later

    monkeypatch.setattr(record_of_scans, "datetime", Later)
    assert scanned(recorder.database, SCAN, POLICY) == {}
