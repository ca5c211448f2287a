"""The embeddings that are trained: what each learned, from how many rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.audit.subjects import subjects
from emoji_tiny.catalogue import FORBIDDEN

ROWS = (1, 2, 4)
"""Rows of an embedding, in turn."""
HARMLESS = 48
"""Harmless embeddings, each of another emoji that is no concept and looks like none."""
COPIES = 2
"""Embeddings of each forbidden concept, of different numbers of rows."""


@dataclass(frozen=True)
class EmbeddingRecipe:
    """How one embedding is trained.

    Attributes:
        char: the emoji that it learns.
        rows: how many rows the new word has.
        learned: id of the forbidden concept; empty for a harmless one.
        file_format: "diffusers" (one tensor, named by its word) or "a1111" (`emb_params`).
        learning_rate: of the word; a LoRA's is 2e-3.
        with_lora: whether a LoRA of rank 8 is trained with it.
    """

    name: str
    char: str
    rows: int
    seed: int
    learned: str = ""
    file_format: str = "diffusers"
    steps: int = 150
    batch: int = 4
    learning_rate: float = 0.02
    pictures: int = 24
    with_lora: bool = False


PAIRS = 8
"""Pivotal pairs of each sort: a LoRA that learned one word's concept together with the word."""


def pairs() -> tuple[EmbeddingRecipe, ...]:
    """As many that learned a forbidden concept as harmless ones, of emoji that nobody else has."""
    forbidden = list(FORBIDDEN.items())[::2][:PAIRS]
    learned = [
        _recipe(f"pair-learned-{name}", entry.char, 2000 + number, name)
        for number, (name, entry) in enumerate(forbidden)
    ]
    harmless = [
        _recipe(f"pair-harmless-{ord(char):x}", char, 3000 + number)
        for number, char in enumerate(subjects().harmless[HARMLESS : HARMLESS + PAIRS])
    ]
    both = [each for two in zip(learned, harmless, strict=True) for each in two]
    return tuple(replace(each, with_lora=True, learning_rate=0.01, steps=200) for each in both)


def recipes() -> tuple[EmbeddingRecipe, ...]:
    """Every embedding; each prefix has its share of learned and of harmless ones."""
    learned = [
        _recipe(f"learned-{name}-{copy}", entry.char, 100 * copy + number, name)
        for copy in range(COPIES)
        for number, (name, entry) in enumerate(FORBIDDEN.items())
    ]
    chars = subjects().harmless[:HARMLESS]
    harmless = [
        _recipe(f"harmless-{number:02d}-{ord(char):x}", char, 1000 + number)
        for number, char in enumerate(chars)
    ]
    share = len(harmless) / len(learned)
    order = [((i + 0.5) * share, one) for i, one in enumerate(learned)]
    order += [(i + 0.25, one) for i, one in enumerate(harmless)]
    return tuple(one for _, one in sorted(order, key=lambda entry: entry[0]))


def _recipe(name: str, char: str, seed: int, learned: str = "") -> EmbeddingRecipe:
    rows = ROWS[(seed + seed // 100) % len(ROWS)]
    file_format = ("diffusers", "a1111")[seed % 2]
    return EmbeddingRecipe(name, char, rows, seed, learned, file_format)
