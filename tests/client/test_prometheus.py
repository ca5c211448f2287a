"""What a program that asks loragate shows on its own /metrics page."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from loragate import AuditClient, AuditError, Verdict, fail_open_total
from loragate.fail_open import AUDIT_RESULTS
from loragate.prometheus import register
from loragate.testing import FakeAuditServer

SMALL = b"adapter"
NOWHERE = "127.0.0.1:1"


def counts(registry: CollectorRegistry) -> dict[str, float]:
    """Audits by result."""
    name = "loragate_client_audits_total"
    found = {one: registry.get_sample_value(name, {"result": one}) for one in AUDIT_RESULTS}
    return {result: value for result, value in found.items() if value is not None}


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    register(registry)
    return registry


def test_every_result_is_there_from_the_start(registry: CollectorRegistry) -> None:
    assert set(counts(registry)) == {
        *(verdict.value.lower() for verdict in Verdict),
        "no_decision",
        "fail_open",
        "refused",
        "accepted_signed",
    }
    page = generate_latest(registry).decode()
    assert "# TYPE loragate_fail_open_total counter" in page


def test_audits_are_counted_by_what_the_caller_was_told(registry: CollectorRegistry) -> None:
    before = counts(registry)
    with FakeAuditServer() as fake, AuditClient(fake.target, timeout=10) as client:
        client.audit(SMALL)
    with AuditClient(NOWHERE, timeout=0.5) as client:
        assert client.audit(SMALL).verdict is Verdict.BLOCK
    with (
        AuditClient(NOWHERE, timeout=0.5, on_unavailable="raise") as client,
        pytest.raises(AuditError),
    ):
        client.audit(SMALL)
    opened = fail_open_total()
    with AuditClient(NOWHERE, timeout=0.5, on_unavailable="allow") as client:
        assert client.audit(SMALL).allowed
    after = counts(registry)
    grown = {result: after[result] - before[result] for result in after}
    assert grown == {
        **dict.fromkeys(AUDIT_RESULTS, 0),
        "allow": 1,
        "no_decision": 2,
        "fail_open": 1,
    }
    assert fail_open_total() == opened + 1
    assert registry.get_sample_value("loragate_fail_open_total") == opened + 1


def test_the_client_does_without_prometheus_client() -> None:
    code = "import sys, loragate; assert 'prometheus_client' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_registering_twice_is_refused(registry: CollectorRegistry) -> None:
    with pytest.raises(ValueError, match="Duplicated"):
        register(registry)
