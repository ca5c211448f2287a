"""Faults of real servers reach the right people by way of a real Prometheus and Alertmanager."""

from __future__ import annotations

import pytest

from tests.alerts.played import Played

pytestmark = [pytest.mark.long, pytest.mark.needs("prometheus"), pytest.mark.timeout(300)]

RECEIVERS = {
    "AdapterBlocked": "content-safety-page",
    "AdapterForReview": "content-safety-ticket",
    "BlockRatioJump": "content-safety-ticket",
    "FailOpenConfigured": "content-safety-ticket",
    "Absent": "sre-page",
    "CertificateExpires": "sre-page",
    "DatabaseFailing": "sre-page",
    "DecisionLogFailing": "sre-page",
    "DiskFull": "sre-page",
    "ErrorBudgetBurnFast": "sre-page",
    "FailOpenInUse": "sre-page",
    "NoAuditsWhileLoadsHappen": "sre-page",
    "NoReplicaReady": "sre-page",
    "QueueSaturated": "sre-page",
    "StoreCorrupt": "sre-page",
    "AuditsInconclusive": "sre-ticket",
    "CalibrationMissing": "sre-ticket",
    "CalibrationStale": "sre-ticket",
    "LatencyObjectiveMissed": "sre-ticket",
    "LibraryDiffers": "sre-ticket",
    "PolicyDiffers": "sre-ticket",
    "PolicyRefused": "sre-ticket",
    "ReplicaNotReady": "sre-ticket",
    "TargetDown": "sre-ticket",
}


def test_nothing_fires_under_healthy_load(played: Played) -> None:
    assert played.healthy == set()


@pytest.mark.parametrize(("alert", "receiver"), RECEIVERS.items())
def test_a_fault_reaches_the_right_people(played: Played, alert: str, receiver: str) -> None:
    if alert == "DiskFull" and "LoragateDiskFull" not in played.fired:
        pytest.skip("mounting a small file system needs root")
    assert f"Loragate{alert}" in played.fired
    assert played.heard.receivers(f"Loragate{alert}") == {receiver}


def test_a_page_silences_the_ticket_about_the_same_certificate(played: Played) -> None:
    assert "LoragateCertificateExpiresSoon" in played.fired
    assert played.heard.receivers("LoragateCertificateExpiresSoon") == set()


def test_who_is_told_learns_what_to_do(played: Played) -> None:
    assert played.heard.told
    for _, alert in played.heard.told:
        notes = alert["annotations"]
        assert notes["summary"]
        assert notes["description"]
        assert notes["runbook_url"].endswith(alert["labels"]["alertname"])
        assert "<no value>" not in notes["summary"] + notes["description"]
