"""Votes are weighed by what a kind of layer says about learned concepts."""

from __future__ import annotations

import pytest
import torch

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.audit.weights import MINIMUM_LEARNED, fit_weights, role_of, weights_of

VALUE = ModuleRef("unet", "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_v")
OTHER_VALUE = ModuleRef("unet", "mid_block.attentions.0.transformer_blocks.0.attn2.to_v")
OUT = ModuleRef("unet", "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0")
TEXT = ModuleRef("text_encoder", "text_model.encoder.layers.3.self_attn.q_proj")


@pytest.mark.parametrize(
    ("ref", "role"),
    [
        (VALUE, "unet:attn2.to_v"),
        (OTHER_VALUE, "unet:attn2.to_v"),
        (OUT, "unet:attn2.to_out"),
        (TEXT, "text_encoder:self_attn.q_proj"),
        (ModuleRef("transformer", "proj_out"), "transformer:proj_out"),
    ],
)
def test_layers_of_different_blocks_share_a_role(ref: ModuleRef, role: str) -> None:
    assert role_of(ref) == role


def test_a_weight_is_the_average_vote_for_what_was_learned() -> None:
    votes = [
        ((VALUE, OTHER_VALUE, OUT), torch.tensor([[4.0, 1.0], [2.0, 1.0], [1.0, -2.0]]))
        for _ in range(MINIMUM_LEARNED)
    ]
    weights = fit_weights(votes)
    assert weights == {"unet:attn2.to_v": (3.0, 1.0), "unet:attn2.to_out": (1.0, 0.0)}


def test_too_few_learned_adapters_give_no_weights() -> None:
    votes = [((VALUE,), torch.tensor([[4.0, 1.0]]))] * (MINIMUM_LEARNED - 1)
    assert fit_weights(votes) == {}
    assert fit_weights([]) == {}


def test_votes_that_are_all_against_give_no_weights() -> None:
    votes = [((VALUE,), torch.tensor([[-4.0, -1.0]]))] * MINIMUM_LEARNED
    assert fit_weights(votes) == {}


def test_layers_without_a_known_role_get_the_average() -> None:
    weights = {"unet:attn2.to_v": (3.0, 1.0), "unet:attn2.to_out": (1.0, 0.0)}
    found = weights_of((VALUE, OUT, TEXT), 2, weights)
    assert found.tolist() == [[3.0, 1.0], [1.0, 0.0], [2.0, 0.5]]


def test_without_weights_all_layers_weigh_alike() -> None:
    assert weights_of((VALUE, TEXT), 3, {}).tolist() == [[1.0] * 3] * 2
    assert weights_of((), 3, {}).shape == (0, 3)
