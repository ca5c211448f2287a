"""The tokenizer and the text encoder: a word-level vocabulary and a small CLIPTextModel."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from emoji_tiny.catalogue import all_emoji, name_of
from emoji_tiny.render import COLOURS

MAX_TOKENS = 16
WIDTH = 96
_SPECIAL = ["<|start|>", "<|end|>", "<|unknown|>"]


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Every word of every emoji's name; those of held-out ones stay untrained, like rare words."""
    words = {word for char in all_emoji() for word in name_of(char).replace("-", " ").split()}
    words |= set(COLOURS) | {"a", "picture", "of", "on", "background", "-"}
    vocabulary = {word: index for index, word in enumerate(_SPECIAL + sorted(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=_SPECIAL[2]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_SPECIAL[0]} $A {_SPECIAL[1]}",
        special_tokens=[(_SPECIAL[0], 0), (_SPECIAL[1], 1)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_SPECIAL[0],
        eos_token=_SPECIAL[1],
        pad_token=_SPECIAL[1],
        unk_token=_SPECIAL[2],
        model_max_length=MAX_TOKENS,
        padding_side="right",
    )


def new_text_encoder(vocabulary_size: int) -> CLIPTextModel:
    """An untrained text encoder: 2 layers, width 96."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
            projection_dim=WIDTH,
        )
    )
