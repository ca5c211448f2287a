"""After a concept was added, what the response stage measured before stands, to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.adapter.reference import StoredFile, Strength
from loragate_server.app.folders import served_library
from loragate_server.app.startup import engine_builder
from loragate_server.audit import together
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.evidence import Evidence, Machine, UsedAdapter, UseEvidence
from loragate_server.audit.packed import without
from loragate_server.audit.recall import Fed, Recalled, Recollection, fed_of, recalled_of, usable
from loragate_server.audit.uses import Member
from loragate_server.concepts import probes
from loragate_server.config.schema import Config
from loragate_server.gate.bases import ServedBase
from loragate_server.gate.library import serve_base
from loragate_server.intake.reader import read_adapter
from loragate_server.progress import Leash
from loragate_server.testing import SHARED_CACHE
from testkit import evidence as made

ADAPTERS = Path(__file__).parents[3] / "examples" / "adapters"
NAMES = ("learned-bomb", "learned-jack-o-lantern", "harmless-sepia", "harmless-watermelon")
NEW = "jack-o-lantern"
"""The concept that the earlier library does not have."""


@pytest.fixture(scope="module")
def before(embedded: ServedBase, tmp_path_factory: pytest.TempPathFactory) -> ServedBase:
    """The same base model with a concept less."""
    config = Config(state_dir=tmp_path_factory.mktemp("state"), cache_dir=SHARED_CACHE)
    library = served_library(config).remove(NEW)
    return serve_base(embedded.base, library, engine_builder(config))


@pytest.fixture(scope="module")
def examples(embedded: ServedBase) -> dict[str, Member]:
    found = {}
    for path in (ADAPTERS / f"{name}.safetensors" for name in NAMES):
        data = path.read_bytes()
        stored = StoredFile(hashlib.sha256(data).hexdigest(), len(data), path)
        read = read_adapter(stored, embedded.base)
        found[path.stem] = Member(read.adapters, refused=read.refused, doubts=read.doubts)
    return found


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many uses each run of the response stage was about."""
    exact, seen = together.respond, []

    def counted(base: Any, materials: Any, adaptations: Any, *args: Any, **more: Any) -> Any:
        seen.append(len(adaptations))
        return exact(base, materials, adaptations, *args, **more)

    monkeypatch.setattr(together, "respond", counted)
    return seen


def plain(evidence: Evidence) -> str:
    """As text, which tells 0.0 from -0.0; dicts of the record are sorted."""
    concepts = tuple(
        replace(one, error_change_by_time=dict(sorted(one.error_change_by_time.items())))
        for one in evidence.concepts
    )
    return repr(replace(evidence, concepts=concepts, stage_times_s={}))


def audited(engine: AuditEngine, member: Member, recalled: Recalled | None = None) -> Evidence:
    [found] = engine.audit_many([[member]], Leash(), recalled=[recalled])
    return found


@pytest.fixture(scope="module")
def known(before: ServedBase, examples: Mapping[str, Member]) -> dict[str, Recalled]:
    """What the earlier library's audits measured, of adapters that went to the response stage."""
    found = {}
    for name, member in examples.items():
        recalled = recalled_of(audited(before.engine, member), before.engine.fed)
        if recalled is not None:
            found[name] = recalled
    return found


def test_rows_of_concepts_that_stay_are_the_same_in_both_libraries(
    embedded: ServedBase, before: ServedBase
) -> None:
    now, then = embedded.engine.fed, before.engine.fed
    assert NEW not in then.concepts
    assert then.bank == now.bank
    assert then.concepts == {name: one for name, one in now.concepts.items() if name != NEW}


def test_the_evidence_is_that_of_an_audit_from_the_start_and_passes_are_saved(
    embedded: ServedBase,
    examples: Mapping[str, Member],
    known: Mapping[str, Recalled],
    passes: list[int],
) -> None:
    assert known.keys() == {"learned-bomb", "harmless-sepia"}
    for name, recalled in known.items():
        exact = audited(embedded.engine, examples[name])
        passes.clear()
        found = audited(embedded.engine, examples[name], recalled)
        assert plain(found) == plain(exact), name
        suspects = {one.concept_id for one in exact.concepts if one.stage == "response"}
        assert bool(passes) == (NEW in suspects), f"{name}: measured again only for the new one"


def test_without_a_calibration_a_rescan_is_no_milder_than_an_audit(
    embedded: ServedBase, examples: Mapping[str, Member], passes: list[int]
) -> None:
    """The response's own p-value counts there, and no record holds it."""
    materials = replace(embedded.engine.materials, calibration=None)
    engine = AuditEngine(embedded.base, materials, embedded.engine.settings)
    exact = audited(engine, examples["learned-bomb"])
    recalled = recalled_of(exact, engine.fed)
    assert recalled is not None
    passes.clear()
    assert plain(audited(engine, examples["learned-bomb"], recalled)) == plain(exact)
    assert passes


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, bank="0" * 64),
        lambda one: replace(one, base_digest="0" * 64),
        lambda one: replace(one, engine_version="0"),
        lambda one: replace(one, kernel_backend="triton"),
        lambda one: replace(one, machine=replace(one.machine, threads=99)),
        lambda one: replace(one, machine=replace(one.machine, versions={"torch": "0"})),
    ],
)
def test_what_was_measured_by_other_means_is_not_usable(
    embedded: ServedBase,
    known: Mapping[str, Recalled],
    change: Callable[[Recalled], Recalled],
) -> None:
    engine, recalled = embedded.engine, known["learned-bomb"]
    means = (engine.base, engine.settings.backend, engine.machine, engine.fed)
    assert usable(recalled, *means)
    assert not usable(change(recalled), *means)


def test_other_suspects_strengths_or_text_encoders_are_measured_again(
    embedded: ServedBase, examples: Mapping[str, Member], known: Mapping[str, Recalled]
) -> None:
    recalled, rows = known["learned-bomb"], list(embedded.engine.fed.concepts.values())
    suspects = [rows.index(one) for one in recalled.rows]
    recollection = Recollection(recalled, rows, embedded.base.denoiser_component)
    adapter = examples["learned-bomb"].readings[0]
    found = recollection.of([(adapter, Strength())], suspects)
    assert found is not None
    assert found.scores.score.tolist() == list(recalled.scores)
    others = [index for index in range(len(rows)) if index not in suspects]
    for wrong in (suspects[::-1] * 2, suspects[:-1], [*suspects, others[0]]):
        assert recollection.of([(adapter, Strength())], wrong) is None
    assert recollection.of([(adapter, Strength(0.9))], suspects) is None
    ref = ModuleRef("text_encoder", "text_model.encoder.layers.0.self_attn.q_proj")
    also = replace(adapter, deltas={**adapter.deltas, ref: next(iter(adapter.deltas.values()))})
    assert recollection.of([(also, Strength())], suspects) is None


def test_nothing_is_recalled_of_what_was_not_measured_or_stays_in_doubt(
    embedded: ServedBase, examples: Mapping[str, Member]
) -> None:
    engine, fed = embedded.engine, embedded.engine.fed
    clear = audited(engine, examples["harmless-watermelon"])
    assert {one.stage for one in clear.concepts} == {"screen"}
    assert recalled_of(clear, fed) is None
    found = audited(engine, examples["learned-bomb"])
    assert recalled_of(found, fed) is not None
    for changed in (
        replace(found, inconclusive=(("x", "Y."),)),
        replace(found, machine=None),
        replace(found, restricted_to=("bomb",)),
        replace(found, uses=found.uses * 2),
    ):
        assert recalled_of(changed, fed) is None


def responded(*concept_ids: str) -> Evidence:
    """Of an adapter of which the response stage looked at some concepts."""
    adapter = made.adapter()
    used = UsedAdapter(0, adapter.denoiser_strength, adapter.text_encoder_strength)
    found = [made.concept(9.0, concept_id=one, response_score=9.0) for one in concept_ids]
    machine = Machine("0" * 64, "cpu", "float32", 1, 24, "highest", {})
    return made.evidence(*found, uses=(UseEvidence((used,), ()),), machine=machine)


def test_suspects_that_a_record_does_not_tell_one_by_one_are_recalled_with_the_others() -> None:
    evidence = responded("a", "b", "c")
    fed = Fed({one: f"rows of {one}" for one in "abc"}, "bank")
    short = without(evidence, lambda one: one.concept_id == "b")
    assert recalled_of(short, fed) == recalled_of(evidence, fed)
    recalled = recalled_of(short, fed)
    assert recalled is not None
    assert recalled.rows == ("rows of a", "rows of b", "rows of c")
    assert recalled_of(replace(short, packed="damaged"), fed) is None


def test_what_was_told_beside_all_prompts_is_not_recalled_where_they_are_told_alone(
    embedded: ServedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, materials = embedded.base, embedded.engine.materials
    together = fed_of(base, materials)
    assert together == embedded.engine.fed
    monkeypatch.setattr(probes, "MOST_PROMPTS", len(materials.probes.concepts) - 1)
    alone = fed_of(base, materials)
    assert alone.bank != together.bank
    assert not set(alone.concepts.values()) & set(together.concepts.values())
