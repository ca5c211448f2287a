"""Tells files that are, or hold, embeddings of new words: textual inversions, pivotal pairs.

An embedding changes no layer, so no delta says what it does; it teaches a word of the prompt. A
file with one that is sent as a LoRA is refused rather than audited for the rest of it; see `words`
for one that is sent as an embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from loragate_server.errors import ErrorReason, NoDecisionError

_NAMED = (
    (re.compile(r"bundle_emb\..+"), "LoRA bundled with the embeddings of its words"),
    (re.compile(r"emb_params"), "textual inversion of A1111"),
    (re.compile(r"string_to_(?:param|token)(?:\..+)?"), "textual inversion of A1111"),
    (
        re.compile(r"clip_[glh]|t5xxl|(?:text_encoders?|te)_?\d*"),
        "embeddings of a pivotal pair, by text encoder",
    ),
    (re.compile(r"learned_embeds?(?:\..+)?"), "textual inversion of diffusers"),
)
_OF_DIFFUSERS = "textual inversion of diffusers"
# Any of these words makes a name one of a layer's tensors, whoever wrote it.
_OF_LAYERS = re.compile(
    r"lora|alpha|dora|hada|lokr|oft|ia3|vera|diff|weight|bias|norm|scale|proj|block|layer|attn",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"<.+>")  # as textual inversions mark their words
_OF_WORDS = re.compile(r"<.+>$|bundle_emb\.|string_to_(?:param|token)\.|learned_embeds?\.")
_MOST_WORDS = 1024
_REMEDY = "Ask about it as what it is, by the kind embedding."
_BUNDLED_REMEDY = (
    "Save the LoRA and its embeddings as files of their own, ask about them together, each "
    "embedding by the kind embedding, and load those files."
)
_WIDTHS = frozenset({512, 768, 1024, 1280, 2048, 2304, 3072, 3584, 4096, 5120})
"""Of the words of text encoders that image models have."""


class Shaped(Protocol):
    """A tensor, as far as its shape says what it is."""

    @property
    def shape(self) -> tuple[int, ...]:
        """How many numbers in each direction."""


def refuse_embedding(tensors: Mapping[str, Shaped], widths: frozenset[int]) -> None:
    """Refuses a file that is or holds an embedding, and was sent as a LoRA.

    Args:
        tensors: the tensors of the file, by name.
        widths: of the words of the base model's own text encoders.

    Raises:
        NoDecisionError: EMBEDDING_REFUSED.
    """
    found = _named(tensors) or _by_shape(tensors, widths | _WIDTHS)
    if found is None:
        return
    kind, name = found
    bundled = any(names_a_layer(each) for each in tensors)
    raise NoDecisionError(
        ErrorReason.EMBEDDING_REFUSED,
        f"The file is or holds an embedding of new words, which is no LoRA ({kind}; the tensor "
        f"{name[:80]!r}).",
        remedy=_BUNDLED_REMEDY if bundled else _REMEDY,
        metadata={"kind": kind, "tensor": name[:80]},
    )


def names_a_layer(name: str) -> bool:
    """Whether a tensor is called as a layer's is."""
    return "." in name and bool(_OF_LAYERS.search(name)) and not _OF_WORDS.match(name)


def _named(tensors: Mapping[str, Shaped]) -> tuple[str, str] | None:
    """An embedding that says by its name what it is, beside whatever else."""
    for name in tensors:
        for pattern, kind in _NAMED:
            if pattern.fullmatch(name):
                return kind, name
    return None


def _by_shape(tensors: Mapping[str, Shaped], widths: frozenset[int]) -> tuple[str, str] | None:
    """A file of words alone: each tensor is named by its word, and is as wide as one."""
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape)
        is_words = len(shape) == 1 or (len(shape) == 2 and 0 < shape[0] <= _MOST_WORDS)
        is_layer = _OF_LAYERS.search(name) and not _TOKEN.fullmatch(name)
        if not is_words or shape[-1] not in widths or is_layer:
            return None
    return next(((_OF_DIFFUSERS, name) for name in tensors), None)
