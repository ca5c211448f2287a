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
from loragate_server.gate.measured import measured_otherwise
from loragate_server.gate.request import GateRequest
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


def recording(
    decide: Decide, calibration_digest: str = "", results: Mock | None = None
) -> Recording:
    """The last stages of a scan, which decides so."""
    return Recording(
        "0" * 16,
        "emoji-tiny",
        decide=decide,
        stored=Mock(),
        policy_digest="d" * 64,
        calibration_digest=calibration_digest,
        recorded={},
        results=results or Mock(),
        progress=Progress(1),
    )


@pytest.mark.parametrize(
    ("name", "location", "shown"),
    [
        ("", "/loras/one.safetensors", "/loras/one.safetensors"),
        ("One", "https://a.example/x.safetensors?sig=secret", "One"),
        (
            "",
            "https://me:secret@a.example:8443/x/y.safetensors?sig=secret#secret",
            "https://a.example:8443/x/y.safetensors",
        ),
        ("", "s3://bucket/one#2?.safetensors", "s3://bucket/one#2?.safetensors"),
        ("", "sftp://me:secret@host/a@b.safetensors", "sftp://host/a@b.safetensors"),
        ("", f"/{300 * 'x'}/one.safetensors", f"{240 * 'x'}/one.safetensors"),
        (300 * "n", "/loras/one.safetensors", 256 * "n"),
    ],
)
def test_the_record_names_a_file_without_what_opens_it(
    name: str, location: str, shown: str
) -> None:
    asked: list[GateRequest] = []

    async def decide(request: GateRequest, *_: object) -> Verdict:
        asked.append(request)
        raise NoDecisionError(ErrorReason.NOT_READY, "Enough.", remedy="None.")

    with pytest.raises(NoDecisionError, match="Enough"):
        asyncio.run(recording(decide).take({**row(), "name": name, "location": location}))
    assert asked[0].adapters[0].declared_name == shown


async def otherwise(*_: object) -> Verdict:
    raise measured_otherwise("the evidence is of another library")


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
    said = f"otherwise than the scan began with: .*{cause}"
    with pytest.raises(NoDecisionError, match=said) as caught:
        asyncio.run(recording(decide, calibration_digest, results).take(row()))
    assert caught.value.reason is ErrorReason.NOT_READY
    assert not results.add.called
