"""Decisions to record, and databases of both kinds to record them in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loragate_server.audit.evidence import (
    ConceptEvidence,
    CoverageEvidence,
    Evidence,
    LayerProfile,
)
from loragate_server.policy.decision import (
    Decision,
    Finding,
    Mode,
    Reason,
    Remedy,
    VerdictKind,
)
from loragate_server.record.recorder import Recorder
from testkit.postgres import PostgresMissingError, PostgresServer, postgres_server


def _decision(
    verdict: VerdictKind = VerdictKind.ALLOW,
    *,
    sha256s: tuple[str, ...] = ("a" * 64,),
    mode: Mode = Mode.ENFORCE,
    score: float = 1.25,
    text: str = "None of 1 concepts reached a threshold.",
) -> Decision:
    concept = ConceptEvidence(
        "cat", "Cat", "character", "high", score, 0.1 + 0.2, 33.3, {"0.16": -0.5, "0.50": 1e-300}
    )
    adapters = tuple(
        CoverageEvidence(sha, 1 << 40, "kohya", 0.7, 1.0, 8, 6, 4, ("lora_te_x", "y"))
        for sha in sha256s
    )
    evidence = Evidence(
        adapters=adapters,
        concepts=(concept,),
        layers=(LayerProfile("unet.mid", 0.1, 0.999, 2.5),),
        inconclusive=(("unmapped_keys", "Two tensors match no layer."),),
        base_model="emoji-tiny",
        base_digest="b" * 64,
        library_digest="c" * 64,
        kernel_backend="reference",
        engine_version="1",
        neutral_count=32,
        stage_times_s={"response": 0.25},
    )
    return Decision(
        verdict=verdict,
        would_be_verdict=VerdictKind.BLOCK if mode is Mode.PILOT else verdict,
        mode=mode,
        remedy=Remedy.NONE if verdict is VerdictKind.ALLOW else Remedy.QUARANTINE,
        reasons=(Reason("no_concept_learned", text),),
        findings=(Finding(concept, verdict, Remedy.NONE),),
        evidence=evidence,
        policy_digest="d" * 64,
        ttl_s=3600.5,
    )


@pytest.fixture(scope="session")
def decision() -> Callable[..., Decision]:
    return _decision


@contextlib.contextmanager
def _running_server() -> Iterator[PostgresServer]:
    try:
        with postgres_server() as server:
            yield server
    except PostgresMissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the tests that leave it running."""
    with _running_server() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that the test may stop."""
    with _running_server() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("initdb"))])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/audits.db"
    return str(request.getfixturevalue("postgres").new_database())


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "decisions.jsonl"


@pytest.fixture
def open_recorder() -> Iterator[Callable[..., Recorder]]:
    """Opens recorders that are closed after the test."""
    with contextlib.ExitStack() as stack:

        def open_one(*arguments: Any, **options: Any) -> Recorder:
            recorder = Recorder(*arguments, **options)
            stack.callback(recorder.close)
            return recorder

        yield open_one


@pytest.fixture
def recorder(open_recorder: Callable[..., Recorder], database_url: str, log_path: Path) -> Recorder:
    return open_recorder(database_url, log_path)
