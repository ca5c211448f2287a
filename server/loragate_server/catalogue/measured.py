"""What an auditor measured, as bytes between the processes of a job: JSON, as the record has it."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import replace

from loragate_server.audit.evidence import Evidence
from loragate_server.audit.packed import whole, without
from loragate_server.record.codec import decode_evidence, encode_evidence

MOST_TOLD = 64
"""Concepts that are written one by one."""


def packed(evidence: Evidence, times_s: Mapping[str, float]) -> bytes:
    """Evidence with its sketches, and the seconds of each stage."""
    sketches = [[b64encode(one).decode() for one in each.sketches] for each in evidence.adapters]
    # of thousands of concepts each would be a JSON object
    small = without(evidence, lambda _: len(evidence.concepts) <= MOST_TOLD)
    told = {"evidence": encode_evidence(small), "sketches": sketches, "times_s": dict(times_s)}
    return json.dumps(told).encode()


def unpacked(data: bytes) -> tuple[Evidence, dict[str, float]]:
    """The very same again.

    Raises:
        ValueError: `packed` did not make the bytes.
    """
    told = json.loads(data)
    evidence = decode_evidence(told["evidence"])
    adapters = tuple(
        replace(each, sketches=tuple(b64decode(one) for one in kept))
        for each, kept in zip(evidence.adapters, told["sketches"], strict=True)
    )
    return whole(replace(evidence, adapters=adapters)), told["times_s"]
