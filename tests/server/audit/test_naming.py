"""Where names act, and how much of an adapter's change to text lies there."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loragate_kernels.lora_response import LayerDirections, LowRank
from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.adapter.algebra import LowRank as Delta
from loragate_server.adapter.reference import Strength
from loragate_server.audit import naming
from loragate_server.audit.naming import name_shares
from loragate_server.audit.screen import hear, screen, screen_each
from loragate_server.audit.screening import Screening
from loragate_server.audit.standing import WEIGHTS, Standing
from loragate_server.concepts.gradients import (
    ConceptGradients,
    GradientPlan,
    build_gradients,
)
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.naming import RANK, NameSpan, name_spans, text_sides
from loragate_server.concepts.probes import ProbePlan
from loragate_server.config.schema import EMBEDDED_LIBRARY
from loragate_server.models import BaseModel
from testkit.tiny_models import FAMILIES

Make = Callable[..., Any]
STRENGTH = 0.8
FULL = Strength()


CROSS = {"attn2.to_k", "attn2.to_v", "attn2.to_q", "attn2.to_out.0"}
JOINT = {
    *("attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out"),
    *("ff_context.net.0.proj", "ff_context.net.2", "context_embedder"),
}
READ = {"sd": CROSS, "sdxl": CROSS, "sd3": JOINT, "flux": JOINT}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_that_read_text_are_known_in_every_family(family: str, base_of: Make) -> None:
    base = base_of(family)
    refs = [ModuleRef(component, name) for component, name in base.adaptable_modules()]
    read = text_sides(refs)
    assert all(ref in read for ref in refs if ref.component.startswith("text_encoder"))
    denoiser = {ref.module for ref in read if ref.component == base.denoiser_component}
    # block and number go
    kinds = {re.sub(r"^.*\.\d+\.(?=attn|ff_)", "", name) for name in denoiser}
    assert kinds == READ[family]


def test_a_second_attention_of_pictures_alone_reads_no_text(base_of: Make) -> None:
    refs = [ModuleRef(component, name) for component, name in base_of("sd3").adaptable_modules()]
    second = [ref for ref in refs if ".attn2." in ref.module]
    assert second
    assert not {*second} & text_sides(refs).keys()


def dense_spans(gradients: ConceptGradients, ref: ModuleRef) -> torch.Tensor:
    """As the formula says, in whole matrices: float64 [concepts, strata * rank, width]."""
    directions, strata = gradients.layers[ref], len(gradients.strata)
    left, right = (
        rows.double().reshape(-1, strata, gradients.plan.rank, rows.shape[1])
        for rows in (directions.left, directions.right)
    )
    told = [row for row, stratum in enumerate(gradients.strata) if stratum.named]
    whole = left[:, told].mT @ right[:, told]  # each gradient, [out, in]
    side = gradients.spans[ref].side
    rows = whole.flatten(1, 2) if side == "in" else whole.mT.flatten(1, 2)
    bank = rows[gradients.forbidden_count :]
    noise = (bank.mT @ bank).mean(0)
    ridge = noise.diagonal().mean() * torch.eye(len(noise), dtype=torch.float64)
    return rows @ torch.linalg.inv(noise + ridge)


def test_spans_are_the_leading_directions_of_whitened_gradients(
    gradients: ConceptGradients,
) -> None:
    assert {span.side for span in gradients.spans.values()} == {"in", "out"}
    for ref, span in gradients.spans.items():
        expected = dense_spans(gradients, ref)
        _, values, vectors = torch.linalg.svd(expected, full_matrices=False)
        kept = values[:, :RANK, None] * vectors[:, :RANK]
        kept = kept / kept.flatten(1).norm(dim=1)[:, None, None]
        torch.testing.assert_close(
            span.rows.double().mT @ span.rows.double(), kept.mT @ kept, atol=3e-3, rtol=0
        )


def test_without_rows_that_are_told_a_name_there_are_no_spans(gradients: ConceptGradients) -> None:
    generic = [dataclasses.replace(one, named=False) for one in gradients.strata]
    assert name_spans(gradients.layers, generic, gradients.forbidden_count) == {}


def changes_of(adapter: Adapter, spans: Mapping[ModuleRef, NameSpan]) -> dict[ModuleRef, Delta]:
    found = {ref: delta for ref, delta in adapter.deltas.items() if ref in spans}
    return {ref: delta for ref, delta in found.items() if isinstance(delta, Delta)}


def test_a_share_is_that_of_the_dense_change(
    gradients: ConceptGradients, make_adapter: Make
) -> None:
    changes = changes_of(make_adapter(), gradients.spans)
    assert changes
    factors = [[LowRank(one.down, one.up, one.scale)] for one in changes.values()]
    found = name_shares(gradients.spans, list(changes), factors)
    assert found.rows == tuple(range(len(changes)))
    for (ref, one), values in zip(changes.items(), found.log_share, strict=True):
        dense = (one.up @ one.down).double()
        rows = gradients.spans[ref].rows.double()
        moved = rows @ dense.mT if gradients.spans[ref].side == "in" else rows @ dense
        expected = moved.square().sum((1, 2)) / dense.square().sum()
        torch.testing.assert_close((2 * values).exp(), expected, rtol=1e-4, atol=1e-9)


def test_layers_that_share_a_call_get_what_each_gets_alone(
    gradients: ConceptGradients, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = changes_of(make_adapter(), gradients.spans)
    factors = [[LowRank(one.down, one.up, one.scale)] for one in changes.values()]
    shared = name_shares(gradients.spans, list(changes), factors)
    alone = [
        name_shares(gradients.spans, [ref], [own]).log_share[0]
        for ref, own in zip(changes, factors, strict=True)
    ]
    assert torch.equal(shared.log_share, torch.stack(alone))
    monkeypatch.setattr(naming, "_AT_ONCE", 1)
    assert torch.equal(
        name_shares(gradients.spans, list(changes), factors).log_share, torch.stack(alone)
    )


@pytest.mark.parametrize("factor", [1e-12, 0.01, -1.0, 1e9])
def test_no_share_depends_on_strength_sign_or_how_the_weights_are_written(
    base: BaseModel, gradients: ConceptGradients, make_adapter: Make, factor: float
) -> None:
    adapter = make_adapter()
    turned = {
        ref: Delta(one.down * factor, one.up / 7, one.scale) for ref, one in adapter.deltas.items()
    }
    [before, after] = (
        screen(base, gradients, [(one, FULL)], "reference").shares
        for one in (adapter, dataclasses.replace(adapter, deltas=turned))
    )
    assert before.rows == after.rows
    torch.testing.assert_close(before.log_share, after.log_share, rtol=0, atol=1e-4)


def test_adapters_that_are_active_together_have_the_shares_of_their_sum(
    base: BaseModel, gradients: ConceptGradients, make_adapter: Make
) -> None:
    first, second = make_adapter(seed=1), make_adapter(seed=2)
    both = [(first, FULL), (second, Strength(STRENGTH, STRENGTH))]
    summed = {
        ref: Delta(
            torch.cat([first.deltas[ref].down, second.deltas[ref].down]),
            torch.cat(
                [
                    first.deltas[ref].up * first.deltas[ref].scale,
                    second.deltas[ref].up * second.deltas[ref].scale * STRENGTH,
                ],
                dim=1,
            ),
            1.0,
        )
        for ref in first.deltas
    }
    one = dataclasses.replace(first, deltas=summed)
    together = screen(base, gradients, both, "reference").shares.log_share
    alone = screen(base, gradients, [(one, FULL)], "reference").shares.log_share
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [1.0, 256.0, 8192.0, 1e8])
def test_ranks_that_cancel_each_other_hide_nothing(
    base: BaseModel, gradients: ConceptGradients, make_adapter: Make, size: float
) -> None:
    """They change no weight, so no share may move."""
    adapter = make_adapter()
    padded = {}
    for ref, one in adapter.deltas.items():
        down, up = torch.ones_like(one.down[:1]), torch.full_like(one.up[:, :1], size)
        padded[ref] = Delta(
            torch.cat([one.down, down, down]), torch.cat([one.up, up, -up], dim=1), one.scale
        )
    wanted = range(gradients.forbidden_count)
    [before, after] = (
        hear(screen(base, gradients, [(one, FULL)], "reference"), gradients, wanted)
        for one in (adapter, dataclasses.replace(adapter, deltas=padded))
    )
    torch.testing.assert_close(before.named[:, 1], after.named[:, 1], rtol=0, atol=1e-4)
    torch.testing.assert_close(before.bank[:, 1], after.bank[:, 1], rtol=0, atol=1e-4)


def test_spans_are_made_with_the_gradients_and_not_in_the_first_audit(
    base: BaseModel, tmp_path: Path
) -> None:
    library = ConceptLibrary.open(EMBEDDED_LIBRARY)
    plan = GradientPlan((ProbePlan(pictures=1, times=(0.5,), neutral=8, named=True),), rank=1)
    made = build_gradients(library, base, tmp_path, plan=plan)
    assert "spans" in vars(made)
    assert made.spans


def test_concepts_are_taken_a_few_at_a_time(
    gradients: ConceptGradients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loragate_server.concepts.naming._AT_ONCE", 4)
    spans = name_spans(gradients.layers, gradients.strata, gradients.forbidden_count)
    for ref, span in spans.items():
        assert torch.equal(span.rows, gradients.spans[ref].rows)


def test_no_share_depends_on_how_many_concepts_the_library_has(
    gradients: ConceptGradients, make_adapter: Make
) -> None:
    strata, rank = len(gradients.strata), gradients.plan.rank
    fewer = {}
    for ref, one in gradients.layers.items():
        rest = slice(strata * rank, None)  # without the first forbidden concept
        fewer[ref] = LayerDirections.low_rank(
            one.left[rest].clone(), one.right[rest].clone(), one.lengths[strata:]
        )
    spans = name_spans(fewer, gradients.strata, gradients.forbidden_count - 1)
    changes = changes_of(make_adapter(), gradients.spans)
    factors = [[LowRank(one.down, one.up, one.scale)] for one in changes.values()]
    for ref, span in spans.items():
        assert torch.equal(span.rows, gradients.spans[ref].rows[1:])
    [all_of_them, some] = (
        name_shares(each, list(changes), factors).log_share for each in (gradients.spans, spans)
    )
    assert torch.equal(all_of_them[:, 1:], some)


def test_a_layer_that_does_nothing_says_nothing(
    base: BaseModel, gradients: ConceptGradients, make_adapter: Make
) -> None:
    adapter = make_adapter()
    still = {
        ref: dataclasses.replace(one, up=torch.zeros_like(one.up))
        for ref, one in adapter.deltas.items()
    }
    found = screen(
        base, gradients, [(dataclasses.replace(adapter, deltas=still), FULL)], "reference"
    )
    assert found.shares.rows
    assert not found.shares.log_share.any()
    heard = hear(found, gradients, range(gradients.forbidden_count))
    assert not heard.named[:, 1].any()


def test_every_adapter_of_many_has_the_shares_that_it_has_alone_to_the_last_bit(
    base: BaseModel, gradients: ConceptGradients, make_adapter: Make
) -> None:
    adapters = [make_adapter(seed=seed) for seed in range(3)]
    for one, found in zip(
        adapters, screen_each(base, gradients, adapters, "reference"), strict=True
    ):
        alone = screen(base, gradients, [(one, FULL)], "reference").shares
        assert alone.rows == found.shares.rows
        assert torch.equal(alone.log_share, found.shares.log_share)


def test_an_adapter_that_learned_another_picture_under_the_name_is_heard(
    base: BaseModel, gradients: ConceptGradients
) -> None:
    """Its pictures' sides are random, so nothing but the words agrees with the gradients."""
    chance = torch.Generator().manual_seed(3)
    deltas = {}
    for ref, span in gradients.spans.items():
        rows, directions = span.rows[1].float(), gradients.layers[ref]
        width = directions.d_out if span.side == "in" else directions.d_in
        other = torch.randn(RANK, width, generator=chance)
        down, up = (rows, other.t()) if span.side == "in" else (other, rows.t())
        deltas[ref] = Delta(down.contiguous(), up.contiguous(), 0.1)
    adapter = Adapter("a" * 64, 1, "test", deltas, _coverage(len(deltas)), {})
    heard = hear(
        screen(base, gradients, [(adapter, FULL)], "reference"),
        gradients,
        range(gradients.forbidden_count),
    )
    shared = heard.named[:, 1]
    assert int(shared.argmax()) == 1
    assert float(shared[1]) > 3 * float(heard.bank[:, 1].abs().max().clamp_min(1.0))


def _coverage(layers: int) -> Any:
    from loragate_server.adapter.adapter import KeyCoverage

    return KeyCoverage(2 * layers, 2 * layers, (), layers)


def _screening(named: np.ndarray, bank: np.ndarray) -> Screening:
    count = len(named)
    told = [(gain, share) for gain, share in named.tolist()]
    known = [(gain, share) for gain, share in bank.tolist()]
    return Screening([0.0] * count, [0.0] * count, (0.0,) * 5, told, known, range(count))


def test_what_is_heard_by_both_measures_stands_out_further_than_by_one() -> None:
    chance = np.random.default_rng(5)
    harmless = [
        _screening(chance.standard_normal((4, 2)), chance.standard_normal((8, 2)))
        for _ in range(60)
    ]
    standing, values = Standing.of(harmless)
    np.testing.assert_allclose(np.array(values).std(0, ddof=1), 1.0)
    quiet = np.zeros((8, 2))
    gained, shared, both = (
        standing.values(_screening(np.array([[*told], *[[0.0, 0.0]] * 3]), quiet))[0]
        for told in ((3.0, 0.0), (0.0, 3.0), (3.0, 3.0))
    )
    assert WEIGHTS[1] > WEIGHTS[0] > 0
    assert 0 < gained[1] < shared[1] < both[1]
    # a share that is silent takes nothing from the score alone
    assert gained[0] == both[0] > gained[1]


def test_where_no_adapter_reads_text_the_gains_alone_stand() -> None:
    chance = np.random.default_rng(6)
    harmless = []
    for _ in range(40):
        named, bank = chance.standard_normal((4, 2)), chance.standard_normal((8, 2))
        named[:, 1] = bank[:, 1] = 0.0
        harmless.append(_screening(named, bank))
    standing, _ = Standing.of(harmless)
    one = np.array([[5.0, 0.0], *[[0.0, 0.0]] * 3])
    found = standing.values(_screening(one, np.zeros((8, 2))))
    assert found[0][0] == pytest.approx(found[0][1])
    assert found[0][0] > 3 > max(abs(value) for one in found[1:] for value in one)
