"""Adapters that are audited at once get the evidence that each gets alone, to the last bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loragate_kernels.lora_response import reference
from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.algebra import LowRank
from loragate_server.adapter.reference import StoredFile, Strength
from loragate_server.audit.batching import BlockRows, exact_copies
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.evidence import Evidence
from loragate_server.audit.materials import Materials
from loragate_server.audit.screen import screen
from loragate_server.audit.together import CPU_WIDTHS, Together, exact_widths
from loragate_server.audit.uses import Member
from loragate_server.concepts.gradients import ConceptGradients
from loragate_server.gate.bases import ServedBase
from loragate_server.intake.reader import read_adapter
from loragate_server.models.base import BaseModel
from loragate_server.progress import Leash
from tests.server.audit.conftest import MakeAdapter, MakeProbes

ADAPTERS = Path(__file__).parents[3] / "examples" / "adapters"


@pytest.fixture(scope="module")
def examples(embedded: ServedBase) -> dict[str, Member]:
    found = {}
    for path in sorted(ADAPTERS.glob("*.safetensors")):
        data = path.read_bytes()
        stored = StoredFile(hashlib.sha256(data).hexdigest(), len(data), path)
        read = read_adapter(stored, embedded.base)
        found[path.stem] = Member(read.adapters, refused=read.refused, doubts=read.doubts)
    return found


def assert_equal(alone: Sequence[Evidence], together: Sequence[Evidence]) -> None:
    for one, other in zip(alone, together, strict=True):
        # as text, which tells 0.0 from -0.0
        assert repr(replace(one, stage_times_s={})) == repr(replace(other, stage_times_s={}))


def spoiled(member: Member) -> Member:
    """The same with one weight that is no number."""
    adapter = member.readings[0]
    deltas = dict(adapter.deltas)
    ref, delta = next(iter(deltas.items()))
    assert isinstance(delta, LowRank)
    down = delta.down.clone()
    down.view(-1)[0] = torch.nan
    deltas[ref] = replace(delta, down=down)
    return replace(member, readings=(replace(adapter, deltas=deltas),))


def test_what_ends_at_the_screen_gets_the_evidence_that_each_gets_alone(
    embedded: ServedBase, examples: Mapping[str, Member]
) -> None:
    clear = examples["harmless-watermelon"]
    questions: Sequence[Sequence[Member]] = [
        *([replace(clear, strengths=(Strength(share, share),))] for share in (1.0, 0.5, 0.25)),
        [spoiled(clear)],
        [replace(clear, doubts=(("no_loader", "No loader would load it."),))],
    ]
    engine = embedded.engine
    alone = [engine.audit(members, Leash()) for members in questions]
    assert {one.stage for evidence in alone for one in evidence.concepts} == {"screen"}
    assert_equal(alone, engine.audit_many(questions, Leash()))


def test_suspects_that_share_forward_passes_get_the_evidence_that_each_gets_alone(
    engine: AuditEngine, make_adapter: MakeAdapter
) -> None:
    adapters = [make_adapter(seed=seed) for seed in range(5)]
    questions = [
        *([Member.of(adapter)] for adapter in adapters),
        [Member.of(adapters[0], Strength(0.5, 0.5)), Member.of(adapters[1])],
    ]
    alone = [engine.audit(members, Leash()) for members in questions]
    assert_equal(alone, engine.audit_many(questions, Leash()))
    assert engine.audit_many([], Leash()) == []


@pytest.mark.long
def test_many_copies_of_all_examples_get_the_evidence_that_each_gets_alone(
    embedded: ServedBase, examples: Mapping[str, Member]
) -> None:
    questions = [
        [replace(one, strengths=(Strength(share, share),))]
        for one in examples.values()
        for share in (1.0, 0.5)
    ]
    alone = [embedded.engine.audit(members, Leash()) for members in questions]
    assert_equal(alone, embedded.engine.audit_many(questions, Leash()))


@pytest.mark.parametrize("ranks", [(4,), (1, 5, 16), (16, 17, 32), (3, 48, 64, 8)])
def test_screens_of_any_ranks_are_those_of_each_alone(
    ranks: tuple[int, ...],
    base: BaseModel,
    make_probes: MakeProbes,
    gradients: ConceptGradients,
    make_adapter: MakeAdapter,
) -> None:
    together = _together(base, make_probes, gradients)
    adapters: list[Adapter] = [
        make_adapter(base, seed=seed, rank=rank) for seed in range(9) for rank in ranks
    ]
    asked = [[(adapter, Strength(0.7, 0.3))] for adapter in adapters]
    found = together.screens(gradients, asked)
    for one, adaptation in zip(found, asked, strict=True):
        expected = screen(base, gradients, adaptation, "reference")
        assert one.layers == expected.layers
        assert one.complete == expected.complete
        assert torch.equal(one.gain, expected.gain)
        assert torch.equal(one.shares.log_share, expected.shares.log_share)


def test_sizes_that_sum_in_another_order_are_not_used(
    gradients: ConceptGradients, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = reference.matmul_float32

    def other_order(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        made = exact(a, b)
        return made if b.shape[1] <= 32 else made * (1 + 2**-20)

    monkeypatch.setattr(reference, "matmul_float32", other_order)
    assert exact_widths(gradients, CPU_WIDTHS, "reference") == (32,)


def test_no_rows_are_shared_where_a_larger_batch_changes_them(
    base: BaseModel, make_probes: MakeProbes, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = make_probes(base)
    denoise = type(base).denoise

    def noisy(self: BaseModel, rows: torch.Tensor, *args: object) -> torch.Tensor:
        made = denoise(self, rows, *args)  # type: ignore[arg-type]
        return made if len(rows) <= 12 else made + len(rows) * 1e-6

    monkeypatch.setattr(type(base), "denoise", noisy)
    assert exact_copies(base, probes, 4, 4) == 2
    assert exact_copies(base, probes, 6, 4) == 1


def test_fewer_copies_than_share_a_pass_have_been_tried_too(
    base: BaseModel, make_probes: MakeProbes, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = make_probes(base)

    def noisy(noisy: torch.Tensor, times: torch.Tensor, told: object) -> torch.Tensor:
        return noisy + (len(noisy) == 16) * torch.arange(len(noisy)).reshape(-1, 1, 1, 1)

    monkeypatch.setattr(base, "denoise", noisy)
    # a last group may have fewer members than there is room for
    assert exact_copies(base, probes, 4, 4) == 2


def _together(base: BaseModel, make_probes: MakeProbes, gradients: ConceptGradients) -> Together:
    materials = Materials(make_probes(base), gradients=gradients)
    block = BlockRows(4, exact=True)
    return Together(base, materials, block=block, backend="reference", held_bytes=1 << 20)
