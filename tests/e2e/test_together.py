"""A real server that is asked about many files at once decides as one that is asked one by one."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from loragate import AsyncAuditClient, AuditClient
from loragate_server.record.codec import decode_verdict
from loragate_server.record.verdict import Verdict
from testkit.servers import forked_server

HARMLESS = ("harmless-watermelon", "harmless-sailboat")
FORBIDDEN = "learned-bomb"
STRENGTHS = (1.0, 0.9, 0.8)


def asked(root: Path) -> list[tuple[Path, float]]:
    names = [(name, share) for share in STRENGTHS for name in HARMLESS]
    names.insert(5, (FORBIDDEN, 1.0))
    return [(root / f"{name}.safetensors", share) for name, share in names]


def decided(state: Path) -> dict[tuple[str, float], Verdict]:
    """What was recorded, by file and strength."""
    lines = (state / "decisions.jsonl").read_text().splitlines()
    found = [json.loads(line).get("verdict") for line in lines]
    verdicts = [decode_verdict(one) for one in found if one is not None]
    firsts = [(one, one.decision.evidence.adapters[0]) for one in verdicts]
    return {(each.sha256, each.denoiser_strength): one for one, each in firsts}


def evidence_of(verdict: Verdict) -> str:
    return repr(replace(verdict.decision.evidence, stage_times_s={}))


def test_many_at_once_get_the_decisions_that_each_gets_alone(root: Path, tmp_path: Path) -> None:
    settings = {"LORAGATE_INTAKE__ROOTS": f'["{root}"]', "LORAGATE_THREADS": "1"}
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir()
    many.mkdir()
    with (
        forked_server(one, settings) as server,
        AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client,
    ):
        for path, share in asked(root):
            client.audit(path, strength=share)

    async def ask(address: str) -> None:
        async with AsyncAuditClient(address, on_unavailable="raise", timeout=120) as client:
            await asyncio.gather(
                *(client.audit(path, strength=share) for path, share in asked(root))
            )

    with forked_server(many, settings) as server:
        asyncio.run(ask(server.grpc))
    alone, together = decided(one), decided(many)
    assert len(alone) == len(asked(root))
    assert {key: evidence_of(value) for key, value in together.items()} == {
        key: evidence_of(value) for key, value in alone.items()
    }
    assert {key: value.decision.verdict for key, value in together.items()} == {
        key: value.decision.verdict for key, value in alone.items()
    }
    # What several shared is divided among them, so that they have the same time to the last bit.
    shared = Counter(value.stage_times_s["screen"] for value in together.values())
    assert shared.most_common(1)[0][1] > 1
