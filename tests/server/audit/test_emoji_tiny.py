"""The embedded base model and the shipped adapters: what was learned is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

import loragate_server
from benchmarks.resilience.load import QUICK
from loragate_server.adapter.reference import StoredFile, Strength
from loragate_server.audit.engine import AuditEngine, AuditSettings
from loragate_server.audit.evidence import Evidence
from loragate_server.audit.uses import Member
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import build_probes
from loragate_server.gate.bases import ServedBase
from loragate_server.intake.reader import read_adapter
from loragate_server.models import load_base_model
from loragate_server.progress import Leash

EMBEDDED = Path(loragate_server.__file__).parent / "assets" / "emoji_tiny"
ADAPTERS = Path(__file__).parents[3] / "examples" / "adapters"

pytestmark = [
    # diffusers warns of its own argument names
    pytest.mark.filterwarnings("ignore:.*torch_dtype.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Evidence]:
    base = load_base_model(EMBEDDED / "pipeline", "emoji-tiny")
    library = ConceptLibrary.open(EMBEDDED / "concepts")
    probes = build_probes(library, base, tmp_path_factory.mktemp("probes"))
    engine = AuditEngine(base, probes, AuditSettings())

    def run(name: str) -> Evidence:
        path = ADAPTERS / f"{name}.safetensors"
        data = path.read_bytes()
        stored = StoredFile(hashlib.sha256(data).hexdigest(), len(data), path)
        adapter = read_adapter(stored, base).adapters[0]
        return engine.audit([Member.of(adapter, Strength())], Leash())

    return run


def test_a_learned_concept_comes_first_and_above_every_harmless_file(
    audit: Callable[[str], Evidence],
) -> None:
    learned = audit("learned-jack-o-lantern")
    assert not learned.inconclusive
    assert learned.neutral_count == 32
    assert len(learned.concepts) >= 12
    first, second, *_ = sorted(learned.concepts, key=lambda one: -one.score)
    assert first.concept_id == "jack-o-lantern"
    assert first.error_change_by_time["0.16"] < 0
    harmless = sorted(path.stem for path in ADAPTERS.glob("harmless-*.safetensors"))
    assert harmless
    for name in harmless:
        evidence = audit(name)
        assert not evidence.inconclusive
        assert max(one.score for one in evidence.concepts) < first.score
    assert first.score > second.score


def test_the_adapter_that_loads_take_for_a_quick_one_ends_at_the_screen(
    embedded: ServedBase,
) -> None:
    data = QUICK.read_bytes()
    stored = StoredFile(hashlib.sha256(data).hexdigest(), len(data), QUICK)
    [adapter] = read_adapter(stored, embedded.base, loaders=("diffusers",)).adapters
    for strength in (0.5, 1.0):
        member = Member.of(adapter, Strength(strength, strength))
        evidence = embedded.engine.audit([member], Leash())
        assert {concept.stage for concept in evidence.concepts} == {"screen"}
