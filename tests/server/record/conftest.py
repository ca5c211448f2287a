"""Decisions to record, and databases of both kinds to record them in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loragate_server.audit.evidence import LayerProfile
from loragate_server.policy.decision import Decision, Mode, Reason, VerdictKind
from loragate_server.record.recorder import Recorder
from testkit import evidence as made
from testkit.postgres import PostgresMissingError, PostgresServer, postgres_server


def _decision(
    verdict: VerdictKind = VerdictKind.ALLOW,
    *,
    sha256s: tuple[str, ...] = ("a" * 64,),
    mode: Mode = Mode.ENFORCE,
    score: float = 1.25,
    text: str = "None of 1 concepts reached a threshold.",
) -> Decision:
    found = made.evidence(
        made.concept(
            score, 0.1 + 0.2, degree=33.3, error_change_by_time={"0.16": -0.5, "0.50": 1e-300}
        ),
        adapters=tuple(
            made.adapter(
                sha, size_bytes=1 << 40, format="kohya", denoiser_strength=0.7,
                mapped_tensors=6, unmapped=("lora_te_x", "y"),
            )
            for sha in sha256s
        ),
        layers=(LayerProfile("unet.mid", 0.1, 0.999, 2.5),),
        inconclusive=(("unmapped_keys", "Two tensors match no layer."),),
        stage_times_s={"response": 0.25},
    )  # fmt: skip
    return made.decision(
        verdict,
        found,
        would_be_verdict=VerdictKind.BLOCK if mode is Mode.PILOT else verdict,
        mode=mode,
        reasons=(Reason("no_concept_learned", text),),
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
