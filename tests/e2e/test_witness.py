"""One real server writes decisions, and another one is the witness of its log."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from loragate import AuditClient, AuditError
from loragate_server.record.tree.note import WITNESS_KEY, Verifier, parse_note, seen_at
from loragate_server.record.tree.signer import read_note_key
from testkit.checkpoints import make_key
from testkit.servers import forked_server
from testkit.waiting import eventually

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"


def test_a_server_has_its_checkpoints_signed_by_another_and_stops_without_it(
    tmp_path: Path,
) -> None:
    log_key, log_public = make_key(tmp_path, "log-key")
    witness_key, witness_public = make_key(tmp_path, "witness-key")
    for name in ("watched", "watching"):
        (tmp_path / name).mkdir()
    watching = {
        "LORAGATE_WITNESS__NAME": "witness",
        "LORAGATE_WITNESS__KEY": json.dumps({"id": "w", "file": str(witness_key.file)}),
        "LORAGATE_WITNESS__LOGS": json.dumps([str(log_public)]),
    }
    checkpoint = tmp_path / "watched" / "decisions.jsonl.tree" / "checkpoint"
    verifier = Verifier("witness", read_note_key(witness_public), WITNESS_KEY)
    with forked_server(tmp_path / "watching", watching) as witness:
        address = {
            "name": "witness",
            "url": f"http://{witness.http}/witness",
            "public_key": str(witness_public),
        }
        settings = {
            "LORAGATE_INTAKE__ROOTS": json.dumps([str(ADAPTERS)]),
            "LORAGATE_CHECKPOINTS__ENABLED": "true",
            "LORAGATE_CHECKPOINTS__INTERVAL_S": "0.2",
            "LORAGATE_CHECKPOINTS__STOP_AFTER_S": "3",
            "LORAGATE_CHECKPOINTS__KEY": json.dumps({"id": "l", "file": str(log_key.file)}),
            "LORAGATE_CHECKPOINTS__WITNESSES": json.dumps([address]),
        }
        with forked_server(tmp_path / "watched", settings) as server:
            with AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client:
                client.audit(ADAPTERS / "harmless-sepia.safetensors", strength=0.5)
            # A note that begins the tree, and the decision.
            assert eventually(lambda: "\n2\n" in checkpoint.read_text(), 20)
            assert seen_at(parse_note(checkpoint.read_text()), verifier) is not None
    # The witness has gone; the next start has a line that nobody has seen.
    with (
        forked_server(tmp_path / "watched", settings) as server,
        AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client,
    ):
        time.sleep(3.5)
        with pytest.raises(AuditError, match="in no checkpoint for more than 3 s at witness"):
            client.audit(ADAPTERS / "harmless-watermelon.safetensors", strength=0.5)
