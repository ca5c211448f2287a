"""Puts new words into prompts: rows of numbers in place of what the text encoders know.

An embedding changes no weight. Its rows stand where the rows of some tokens of the prompt would,
before the first layer of each text encoder. Here a prompt with as many stand-ins is encoded, and a
hook on the table of words exchanges their rows; the table itself is never changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from loragate_server.models.base import BaseModel, Conditioning

_BEFORE = "a picture of"
_BEFORE_TOKENS = 5  # with the first and the last token of the prompt
_STAND_IN = " a"
"""A word that every tokenizer has, as one token; not the last one of the text before it."""

Words = Mapping[str, Tensor]
"""By text encoder, the rows of a new word, float32 [n, width]."""


def room_for_words(base: BaseModel) -> int:
    """How many rows of new words the prompt has room for; 0 for a family that takes none."""
    rooms = [table.room for table in base.word_tables().values()]
    return max(0, min(rooms) - _BEFORE_TOKENS) if rooms else 0


def encode_words(base: BaseModel, words: Sequence[Words]) -> Conditioning:
    """What the denoiser is told by "a picture of" and some new words; one row.

    The text encoders are used as they are now (hooks included).

    Args:
        base: the base model; each of its `word_tables` gets the rows of each word.
        words: one after the other; at least one row.

    Raises:
        ValueError: there are more rows than `room_for_words`, or a text encoder gets none.
    """
    count = sum(len(next(iter(each.values()))) for each in words)
    with _exchanged(base, words, count), torch.inference_mode():
        return base.encode_prompts([_BEFORE + _STAND_IN * count])


@contextmanager
def _exchanged(base: BaseModel, words: Sequence[Words], count: int) -> Iterator[None]:
    """Inside it, the last `count` tokens of every prompt have the rows of the words."""
    handles = []
    try:
        for component, table in base.word_tables().items():
            rows = torch.cat([each[component] for each in words if component in each] or [_NONE])
            if len(rows) != count:
                raise ValueError(f"{component} gets {len(rows)} rows of new words, not {count}")
            hook = partial(_exchange, rows, table.end)
            handles.append(table.module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


_NONE = torch.zeros(0, 0)


def _exchange(
    rows: Tensor, end: int, _module: nn.Module, given: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    """The rows of the tokens, with those of the new words where the stand-ins are."""
    told = output.clone()
    for tokens, row in zip(given[0], told, strict=True):
        ends = (tokens == end).nonzero()
        last = int(ends[0]) if len(ends) else -1
        first = last - len(rows)
        stand_ins = tokens[max(first, 0) : last]
        alone = first > 0 and bool((stand_ins == tokens[last - 1]).all())
        if not alone or bool(tokens[first - 1] == tokens[last - 1]):
            raise ValueError(f"a prompt has no room for {len(rows)} rows of new words")
        row[first:last] = rows.to(row)
    return told
