"""Builders of evidence and policies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loragate_server.audit.evidence import ConceptEvidence, CoverageEvidence, Evidence
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.policy import Policy
from testkit import evidence as made

MINIMAL = "version: 1\nmode: enforce\ndefaults:\n  block_score: 6\n  review_score: 4\n"


def _policy(extra: str = "", base: str = MINIMAL) -> Policy:
    return parse_policy((base + extra).encode())


@pytest.fixture(scope="session")
def concept() -> Callable[..., ConceptEvidence]:
    return made.concept


@pytest.fixture(scope="session")
def adapter() -> Callable[..., CoverageEvidence]:
    return made.adapter


@pytest.fixture(scope="session")
def evidence() -> Callable[..., Evidence]:
    return made.evidence


@pytest.fixture(scope="session")
def policy() -> Callable[..., Policy]:
    return _policy
