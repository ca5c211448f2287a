"""Verdicts made by the real policy and recorded in a real database."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loragate_server.audit.evidence import (
    ConceptEvidence,
    CoverageEvidence,
    Evidence,
    HeatMap,
    LayerProfile,
)
from loragate_server.policy.decide import decide
from loragate_server.policy.parse import parse_policy
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Caller, Verdict
from loragate_server.report.render import render
from loragate_server.report.wording import REPORT
from testkit import evidence as built
from tests.server.report.reading import Page

POLICY = "version: 1\nmode: {mode}\ndefaults:\n  block_score: 4\n  review_score: 2.5\n"
TIMES = ("0.16", "0.33", "0.50", "0.67", "0.84")
UNET = (
    *(f"down_blocks.{i}.{kind}.{j}" for i in range(3) for kind in ("resnets", "attentions")
      for j in range(2)),
    *(f"mid_block.resnets.{j}" for j in range(2)),
    *(f"up_blocks.{i}.{kind}.{j}" for i in range(3) for kind in ("resnets", "attentions")
      for j in range(3)),
)  # fmt: skip
CALLER = Caller("image-service", "tenant-a", "request-17", "CN=image-service")


def _concept(number: int = 0, score: float = 0.5, p_value: float = 0.3, **facts: Any) -> Any:
    """Evidence on one of some concepts of a library."""
    names = ("Acme Mascot", "Jane Doe", "Bomb", "Acme Logo", "Star Captain")
    categories = ("character", "likeness", "harm", "brand", "character")
    severities = ("high", "critical", "medium", "low", "high")
    known: dict[str, Any] = {
        "concept_id": f"concept-{number}",
        "concept_name": names[number % 5] + (f" {number // 5 + 1}" if number >= 5 else ""),
        "category": categories[number % 5],
        "severity": severities[number % 5],
        "degree": 4.0,
    }
    return built.concept(score, p_value, **{**known, **facts})


def _heat_map(layers: tuple[str, ...] = UNET, strength: float = 7.0) -> HeatMap:
    """A map with a hot spot in the later third of the model, at middling noise."""
    values = tuple(
        tuple(
            round(
                strength
                * math.exp(-(((row / len(layers) - 0.72) / 0.16) ** 2))
                * math.exp(-(((column - 1.8) / 1.3) ** 2))
                + 0.7 * math.sin(3.1 * row + 1.7 * column),
                3,
            )
            for column in range(len(TIMES))
        )
        for row in range(len(layers))
    )
    return HeatMap("concept-0", layers, TIMES, values)


def _coverage(letter: str = "a", **facts: Any) -> CoverageEvidence:
    """Coverage of an adapter that was understood in full."""
    known: dict[str, Any] = {
        "size_bytes": 37_861_176, "format": "kohya", "denoiser_strength": 0.8,
        "weight_tensors": 192, "mapped_tensors": 192, "matched_modules": 96,
    }  # fmt: skip
    return built.adapter(letter * 64, **{**known, **facts})


def _evidence(*concepts: ConceptEvidence, **facts: Any) -> Evidence:
    """Evidence of an audit that went well."""
    known: dict[str, Any] = {
        "adapters": (_coverage(),),
        "layers": tuple(LayerProfile(name, 0.12, 0.9931, 1.4) for name in UNET),
        "neutral_count": 48,
        "stage_times_s": {"response": 0.41},
    }
    return built.evidence(*concepts, **{**known, **facts})


def _clean(count: int = 5) -> tuple[ConceptEvidence, ...]:
    """Concepts that were not learned."""
    return tuple(_concept(n, score=1.2 - 0.1 * n, p_value=0.2) for n in range(count))


Made = dict[str, tuple[Evidence, str, bool]]


def _kinds() -> Made:
    """Every kind of verdict: evidence, additions to the policy, and whether it is a dry run."""
    learned = _concept(score=6.4, p_value=2e-8, degree=63.0, family_p_value=0.0007)
    seen = _concept(score=3.1, p_value=0.004, degree=21.0)
    others = _clean()[1:]
    blocked = _evidence(learned, *others, heat_map=_heat_map(), calibration_digest="e" * 64)
    doubt = ("unmapped_keys", "Adapter aaaaaaaaaaaa has 3 weight tensors that match no layer.")
    unread = _coverage("d", format="", weight_tensors=0, mapped_tensors=0, matched_modules=0)
    not_audited = ("not_audited", "An adapter is on the deny list, so none was audited.")
    listed = '{}_sha256:\n  - sha256: "{}"\n    note: Ticket 123\n'
    return {
        "allow": (_evidence(*_clean(), heat_map=_heat_map(strength=1.0)), "", False),
        "review": (_evidence(seen, *others), "", False),
        "block": (blocked, "", False),
        "inconclusive": (_evidence(layers=(), inconclusive=(doubt,)), "", False),
        "doubt_blocks": (
            _evidence(layers=(), inconclusive=(doubt,)), "when_inconclusive: block\n", False
        ),
        "pilot": (blocked, "pilot", False),
        "dry_run": (blocked, "", True),
        "deny_listed": (
            _evidence(adapters=(unread,), layers=(), inconclusive=(not_audited,), neutral_count=0,
                     kernel_backend=""),
            listed.format("deny", "d" * 64), False,
        ),
        "allow_listed": (blocked, listed.format("allow", "a" * 64), False),
        "several": (
            _evidence(learned, *others, adapters=(_coverage("a"), _coverage("f"))), "", False
        ),
    }  # fmt: skip


@pytest.fixture
def made() -> Made:
    """Name of a kind of verdict to what it is made from."""
    return _kinds()


@pytest.fixture(params=tuple(_kinds()))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of verdict in turn."""
    return str(request.param)


@pytest.fixture
def concept() -> Callable[..., ConceptEvidence]:
    return _concept


@pytest.fixture
def evidence() -> Callable[..., Evidence]:
    return _evidence


@pytest.fixture
def coverage() -> Callable[..., CoverageEvidence]:
    return _coverage


@pytest.fixture
def heat_map() -> Callable[..., HeatMap]:
    return _heat_map


@pytest.fixture
def clean() -> Callable[..., tuple[ConceptEvidence, ...]]:
    return _clean


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Writes to the database that a server with this state directory has."""
    opened = Recorder(f"sqlite:///{tmp_path}/loragate.sqlite3", tmp_path / "decisions.jsonl")
    yield opened
    opened.close()


@pytest.fixture
def recorded(recorder: Recorder) -> Callable[..., Verdict]:
    """Decides, records, and reads the verdict from the database again."""

    def record(found: Evidence, policy: str = "", dry_run: bool = False) -> Verdict:
        pilot = policy == "pilot"
        text = POLICY.format(mode="pilot" if pilot else "enforce") + ("" if pilot else policy)
        decision = decide(parse_policy(text.encode()), found)
        times = {"queued": 0.01, "response": 0.41}
        made = recorder.record(decision, CALLER, stage_times_s=times, dry_run=dry_run)
        return recorder.get(made.decision_id)

    return record


@pytest.fixture(params=REPORT.languages)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def english(recorded: Callable[..., Verdict]) -> Callable[..., Page]:
    def make(found: Evidence, policy: str = "", dry_run: bool = False) -> Page:
        return Page(render(recorded(found, policy, dry_run)))

    return make
