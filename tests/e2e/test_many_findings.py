"""A real server tells some findings of the embedded library one by one, and records all of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from loragate import AuditClient, AuditResult
from loragate_server.audit.packed import whole, without
from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.policy.decide import decide
from loragate_server.policy.parse import parse_policy
from loragate_server.record.codec import decode_verdict, encode, parse_verdict, to_json
from loragate_server.testing import environment
from testkit.servers import forked_command, forked_server

MOST = 3
CONCEPTS = 16
"""Forbidden ones of the embedded library."""


@dataclass(frozen=True)
class Past:
    """A server that has gone, and what it answered."""

    state: Path
    settings: dict[str, str]
    first: AuditResult
    cached: AuditResult
    fetched: AuditResult
    restricted: AuditResult

    def run(self, *words: object) -> tuple[int, str, str]:
        done = forked_command([str(word) for word in words], environment(self.state, self.settings))
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Past:
    state = tmp_path_factory.mktemp("many")
    policy = state / "policy.yaml"
    policy.write_text(EMBEDDED_POLICY.read_text().replace("callers: []", 'callers: ["*"]'))
    settings = {
        "LORAGATE_INTAKE__ROOTS": f'["{root}"]',
        "LORAGATE_THREADS": "1",
        "LORAGATE_POLICY": str(policy),
        "LORAGATE_FINDINGS__MOST": str(MOST),
    }
    file = root / "learned-father-christmas.safetensors"
    with (
        forked_server(state, settings) as server,
        AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client,
    ):
        first = client.audit(file)
        ids = [one.concept_id for one in client.concepts.list() if one.role == "FORBIDDEN"]
        return Past(
            state,
            settings,
            first,
            client.audit(file),
            client.get(first.decision_id),
            client.audit(file, concept_ids=ids[:5]),
        )


def test_the_answer_holds_the_highest_findings_and_counts_the_others(past: Past) -> None:
    for result in (past.first, past.cached, past.fetched):
        assert len(result.findings) >= MOST
        assert result.left_out is not None
        assert len(result.findings) + result.left_out.count == CONCEPTS
        assert result.left_out.highest_score is not None
        assert result.left_out.highest_score <= min(one.score for one in result.findings)
    assert past.cached.cached


def test_every_concept_that_was_asked_for_is_told(past: Past) -> None:
    assert len(past.restricted.findings) == 5
    assert past.restricted.left_out is None


def test_the_log_has_the_numbers_of_all_concepts(past: Past) -> None:
    line = json.loads((past.state / "decisions.jsonl").read_text().splitlines()[0])
    verdict = decode_verdict(line["verdict"])
    assert verdict.decision.left_out is not None
    evidence = whole(verdict.decision.evidence)
    assert len(evidence.concepts) == CONCEPTS
    policy = parse_policy(Path(past.settings["LORAGATE_POLICY"]).read_bytes())
    again = decide(policy, verdict.decision.evidence, now=verdict.decided_at)
    assert len(again.findings) == CONCEPTS
    assert again.verdict is verdict.decision.verdict


def test_the_decision_is_made_again_to_the_last_bit(past: Past) -> None:
    code, out, errors = past.run("replay", "--exact", past.first.decision_id)
    assert code == 0, errors
    assert "the same to the last bit" in out


def test_a_packed_number_that_was_changed_is_found_out(past: Past) -> None:
    with changed_score(past.state, past.first.decision_id) as concept:
        code, _, errors = past.run("replay", "--exact", past.first.decision_id)
    assert code != 0
    assert "decision.evidence.concepts[" in errors, concept
    assert ".score: recorded 4.75, now " in errors


@contextmanager
def changed_score(state: Path, decision_id: str) -> Iterator[str]:
    """Writes another score of a concept that is not told into the record, and takes it back."""
    with closing(sqlite3.connect(state / "loragate.sqlite3")) as database:
        where = "where decision_id = ?"
        [(payload,)] = database.execute(f"select payload from audits {where}", [decision_id])
        verdict = parse_verdict(payload)
        told = {one.concept_id for one in verdict.decision.evidence.concepts}
        every = list(whole(verdict.decision.evidence).concepts)
        place = next(n for n, one in enumerate(every) if one.concept_id not in told)
        every[place] = replace(every[place], score=4.75)
        evidence = without(
            replace(verdict.decision.evidence, concepts=tuple(every), packed=""),
            lambda one: one.concept_id in told,
        )
        bent = replace(verdict, decision=replace(verdict.decision, evidence=evidence))

        def put(text: str) -> None:
            database.execute(f"update audits set payload = ? {where}", [text, decision_id])
            database.commit()

        put(to_json(encode(bent)))
        try:
            yield every[place].concept_id
        finally:
            put(payload)
