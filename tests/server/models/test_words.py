"""New words in prompts: what the denoiser is told is what diffusers would tell it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loragate_server.models import BaseModel, from_pipeline
from loragate_server.models.words import encode_words, room_for_words
from testkit.tiny_models import TOKENS, WIDTH, tiny_base, tiny_pipeline

TEXT_ENCODERS = {"sd": ("text_encoder",), "sdxl": ("text_encoder", "text_encoder_2")}
families = pytest.mark.parametrize("family", TEXT_ENCODERS)


def word(family: str, count: int, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        component: torch.randn(count, WIDTH, generator=generator)
        for component in TEXT_ENCODERS[family]
    }


def told(base: BaseModel, *words: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(encode_words(base, words).tensors)


@families
@pytest.mark.parametrize("count", [1, 3])
def test_a_word_is_told_as_diffusers_tells_a_loaded_textual_inversion(
    family: str, count: int
) -> None:
    rows = word(family, count)
    pipeline = tiny_pipeline(family)
    for component, tensor in rows.items():
        suffix = component.removeprefix("text_encoder")
        pipeline.load_textual_inversion(
            {"<learned>": tensor},
            text_encoder=getattr(pipeline, component),
            tokenizer=getattr(pipeline, f"tokenizer{suffix}"),
        )
    loaded = from_pipeline(pipeline, "loaded", picture_size=(16, 16))
    expected = loaded.encode_prompts(["a picture of <learned>"]).tensors
    found = told(tiny_base(family), rows)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=lambda text, name=name: name + text)


@families
def test_the_base_model_is_as_before(family: str) -> None:
    base = tiny_base(family)
    before = base.encode_prompts(["a picture of a"]).tensors
    tables = [table.module.weight.clone() for table in base.word_tables().values()]
    told(base, word(family, 1))
    after = base.encode_prompts(["a picture of a"]).tensors
    assert all(torch.equal(before[name], after[name]) for name in before)
    for table, kept in zip(base.word_tables().values(), tables, strict=True):
        assert torch.equal(table.module.weight, kept)
        assert not table.module._forward_hooks


def test_the_rows_of_known_words_are_told_as_those_words() -> None:
    base = tiny_base("sd")
    [table] = base.word_tables().values()
    [tokens] = base.pipeline.tokenizer(["red cat"]).input_ids
    found = told(base, {"text_encoder": table.module.weight[tokens[1:3]].clone()})
    expected = base.encode_prompts(["a picture of red cat"]).tensors
    torch.testing.assert_close(found["encoder_hidden_states"], expected["encoder_hidden_states"])


def test_several_words_are_told_one_after_the_other() -> None:
    base = tiny_base("sd")
    one, two = word("sd", 1), word("sd", 2, seed=2)
    joined = {"text_encoder": torch.cat([one["text_encoder"], two["text_encoder"]])}
    first, second = told(base, one, two), told(base, joined)
    assert torch.equal(first["encoder_hidden_states"], second["encoder_hidden_states"])


@families
def test_more_rows_than_a_prompt_holds_are_no_shorter_word(family: str) -> None:
    base = tiny_base(family)
    assert room_for_words(base) == TOKENS - 5
    told(base, word(family, TOKENS - 5))
    with pytest.raises(ValueError, match="no room for 8 rows"):
        told(base, word(family, TOKENS - 4))


def test_a_text_encoder_without_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="text_encoder_2 gets 0 rows"):
        told(tiny_base("sdxl"), word("sd", 1))


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_other_families_take_no_words(family: str) -> None:
    assert room_for_words(tiny_base(family)) == 0
