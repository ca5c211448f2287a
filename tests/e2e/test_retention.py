"""Everything is pruned beneath a server: what was blocked is blocked, and what is left is told."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from loragate import AdapterReference, AuditClient, AuditError, Verdict
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.testing import environment
from testkit.servers import forked_command, forked_server

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
BOMB = ADAPTERS / "learned-bomb.safetensors"
WATERMELON = ADAPTERS / "harmless-watermelon.safetensors"

SETTINGS = {
    "LORAGATE_RETENTION__DECISIONS": "90d",
    "LORAGATE_RETENTION__UPLOADS": "30d",
    "LORAGATE_RETENTION__BLOCKED_UPLOADS": "delete",
}


def used(file: Path, strength: float) -> AdapterReference:
    return AdapterReference(data=file.read_bytes(), strength=strength)


def test_a_blocked_adapter_stays_blocked_after_everything_was_pruned(tmp_path: Path) -> None:
    (state := tmp_path / "state").mkdir()
    variables = {**SETTINGS, "LORAGATE_RETENTION__ARCHIVE": str(tmp_path / "archive")}
    with (
        forked_server(state, variables) as server,
        AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client,
    ):
        blocked = client.audit_file(BOMB)
        allowed = client.audit_file(WATERMELON)
    assert (blocked.verdict, allowed.verdict) == (Verdict.BLOCK, Verdict.ALLOW)
    _age(state)
    words = ("retention", "prune", "--state-dir", str(state))
    done = forked_command(words, environment(state, variables))
    assert done.returncode == 0, done.stderr
    assert "decisions: 1 went" in done.stdout
    assert "1 stay: a block rests on them" in done.stdout
    digest = hashlib.sha256(BOMB.read_bytes()).hexdigest()
    assert not list((state / "store").glob(f"??/{digest}.safetensors"))
    lenient = tmp_path / "lenient.yaml"  # so that the record alone can block
    lenient.write_text(EMBEDDED_POLICY.read_text().replace("min_degree: 0", "min_degree: 100"))
    with (
        forked_server(state, {**variables, "LORAGATE_POLICY": str(lenient)}) as server,
        AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client,
    ):
        left = client.get(blocked.decision_id)
        assert left.verdict is Verdict.BLOCK
        assert [one.concept_id for one in left.findings] == ["bomb"]
        assert [one.decision_id for one in client.list()] == [blocked.decision_id]
        with pytest.raises(AuditError, match="was pruned") as caught:
            client.get(allowed.decision_id)
        assert caught.value.reason == "DECISION_UNKNOWN"
        company = client.audit([used(BOMB, 0.01), used(WATERMELON, 1.0)])
        assert company.verdict is Verdict.BLOCK
        assert [one.code for one in company.reasons] == ["known_bad"]
        assert blocked.decision_id in company.reasons[0].message
        assert client.audit_file(WATERMELON).verdict is Verdict.ALLOW
    page = tmp_path / "report.html"
    report = forked_command(
        ("report", blocked.decision_id, "--state-dir", str(state), "--out", str(page)),
        environment(state, variables),
    )
    assert report.returncode == 0, report.stderr
    assert page.exists()
    same = forked_command(
        ("log", "reconcile", "--state-dir", str(state)), environment(state, variables)
    )
    assert same.returncode == 0, same.stderr


def _age(state: Path) -> None:
    """Makes all decisions years older, in the column that pruning looks at."""
    engine = create_engine(f"sqlite:///{state / 'loragate.sqlite3'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE audits SET decided_at = '2020-01-01 00:00:00.000000'"))
    engine.dispose()
