"""What ends a scan in the middle, and what is one file's alone."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

from loragate_server.catalogue.failure import no_failure
from loragate_server.catalogue.measured import packed
from loragate_server.catalogue.progress import Progress
from loragate_server.catalogue.recording import Decide, Recording
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.measured import MeasuredOtherwiseError
from loragate_server.record.verdict import Verdict
from testkit import evidence as made


def row() -> dict[str, object]:
    """A file that was measured."""
    return {
        "location": "/loras/one.safetensors",
        "version": "1",
        "name": "",
        "metadata": "{}",
        "key": "a" * 64,
        "sha256": "a" * 64,
        "config_json": None,
        "weights_sha256": "",
        "size_bytes": 1000,
        "same": False,
        "measured": packed(made.evidence(made.concept()), {}),
        **no_failure(),
    }


async def otherwise(*_: object) -> Verdict:
    raise MeasuredOtherwiseError("the evidence is of another library")


async def never(*_: object) -> Verdict:
    raise AssertionError("it was decided over p-values of another calibration")


@pytest.mark.parametrize(
    ("decide", "calibration_digest", "cause"),
    [(otherwise, "", "another library"), (never, "c" * 64, "another calibration")],
    ids=["library", "calibration"],
)
def test_an_auditor_that_measures_otherwise_ends_the_scan_and_says_what_to_do(
    decide: Decide, calibration_digest: str, cause: str
) -> None:
    results = Mock()
    recording = Recording(
        "0" * 16,
        "emoji-tiny",
        decide=decide,
        stored=Mock(),
        policy_digest="d" * 64,
        calibration_digest=calibration_digest,
        recorded={},
        results=results,
        progress=Progress(1),
    )
    said = f"otherwise than the scan began with: .*{cause}"
    with pytest.raises(NoDecisionError, match=said) as caught:
        asyncio.run(recording.take(row()))
    assert caught.value.reason is ErrorReason.NOT_READY
    assert not results.add.called
