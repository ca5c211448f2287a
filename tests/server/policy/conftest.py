"""Builders of evidence and policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loragate_server.audit.evidence import ConceptEvidence, CoverageEvidence, Evidence
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.policy import Policy

MINIMAL = "version: 1\nmode: enforce\ndefaults:\n  block_score: 6\n  review_score: 4\n"


def _concept(score: float = 0.0, p_value: float = 0.5, **changes: Any) -> ConceptEvidence:
    facts: dict[str, Any] = {
        "concept_id": "cat",
        "concept_name": "Cat",
        "category": "character",
        "severity": "high",
        "degree": 50.0,
        "error_change_by_time": {"0.50": -0.1},
    }
    return ConceptEvidence(**{**facts, "score": score, "p_value": p_value, **changes})


def _adapter(sha256: str = "a" * 64, **changes: Any) -> CoverageEvidence:
    facts: dict[str, Any] = {
        "size_bytes": 1000,
        "format": "peft",
        "denoiser_strength": 1.0,
        "text_encoder_strength": 1.0,
        "weight_tensors": 8,
        "mapped_tensors": 8,
        "matched_modules": 4,
        "unmapped": (),
    }
    return CoverageEvidence(sha256=sha256, **{**facts, **changes})


def _evidence(*concepts: ConceptEvidence, **changes: Any) -> Evidence:
    facts: dict[str, Any] = {
        "adapters": (_adapter(),),
        "concepts": concepts,
        "layers": (),
        "inconclusive": (),
        "base_model": "emoji-tiny",
        "base_digest": "b" * 64,
        "library_digest": "c" * 64,
        "kernel_backend": "reference",
        "engine_version": "1",
        "neutral_count": 32,
        "stage_times_s": {"response": 0.5},
    }
    return Evidence(**{**facts, **changes})


def _policy(extra: str = "", base: str = MINIMAL) -> Policy:
    return parse_policy((base + extra).encode())


@pytest.fixture(scope="session")
def concept() -> Callable[..., ConceptEvidence]:
    return _concept


@pytest.fixture(scope="session")
def adapter() -> Callable[..., CoverageEvidence]:
    return _adapter


@pytest.fixture(scope="session")
def evidence() -> Callable[..., Evidence]:
    return _evidence


@pytest.fixture(scope="session")
def policy() -> Callable[..., Policy]:
    return _policy
