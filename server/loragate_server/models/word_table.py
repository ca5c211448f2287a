"""`WordTable`: where a text encoder takes the rows of its words from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class WordTable:
    """The table of words of one text encoder, and what its prompts look like.

    Attributes:
        module: from token ids int64 [batch, tokens] to rows [batch, tokens, width].
        width: numbers of a row.
        end: id of the token that ends a prompt; the first one counts, others may be padding.
        room: tokens of a prompt at most, its first and its last included.
    """

    module: nn.Module
    width: int
    end: int
    room: int

    @classmethod
    def of(cls, encoder: Any, tokenizer: Any) -> WordTable:
        """Of a CLIP text encoder of transformers, and its tokenizer."""
        module = encoder.get_input_embeddings()
        room = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        return cls(module, module.embedding_dim, tokenizer.eos_token_id, room)
