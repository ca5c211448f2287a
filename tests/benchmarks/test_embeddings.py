"""The embeddings of the benchmark: who learns what, and that intake reads what is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.embeddings.__main__ import Seen, figures
from benchmarks.embeddings.recipes import EmbeddingRecipe, pairs, recipes
from benchmarks.embeddings.train import (
    PIPELINE,
    file_of,
    frozen_pipeline,
    save_embedding,
    train_embedding,
)
from emoji_tiny.catalogue import FONT_PATH, FORBIDDEN
from loragate_server.adapter.reference import StoredFile
from loragate_server.intake.reader import read_adapter
from loragate_server.models import load_base_model

pytestmark = pytest.mark.skipif(
    not Path(FONT_PATH).exists(), reason="needs Debian's fonts-noto-color-emoji"
)


def every() -> tuple[EmbeddingRecipe, ...]:
    return (*recipes(), *pairs())


def test_no_harmless_word_is_of_a_forbidden_concept_or_of_another_word() -> None:
    harmless = [one.char for one in every() if not one.learned]
    assert len(set(harmless)) == len(harmless)
    assert not set(harmless) & {entry.char for entry in FORBIDDEN.values()}
    assert all(FORBIDDEN[one.learned].char == one.char for one in every() if one.learned)


def test_every_word_has_a_name_and_a_seed_of_its_own() -> None:
    assert len({one.name for one in every()}) == len(every())
    assert len({one.seed for one in every()}) == len(every())


@pytest.mark.parametrize("file_format", ["diffusers", "a1111"])
def test_a_word_that_was_trained_is_read(file_format: str, tmp_path: Path) -> None:
    recipe = replace(recipes()[0], rows=2, steps=2, pictures=2, file_format=file_format)
    rows = train_embedding(frozen_pipeline(), recipe)
    file = file_of(recipe, tmp_path)
    save_embedding(rows, recipe, file)
    base = load_base_model(PIPELINE, "emoji-tiny")
    stored = StoredFile("e" * 64, file.stat().st_size, file)
    found = read_adapter(stored, base, kind="embedding").adapters[0]
    assert found.words["text_encoder"].equal(rows)


def test_training_starts_where_the_prompt_has_its_word() -> None:
    """The rows are put behind "a picture of": the first token of them is the fifth."""
    tokens = frozen_pipeline().tokenizer(["a picture of of of"]).input_ids[0]
    assert tokens[4] == tokens[5] == tokens[3]
    assert len(tokens) == 7


def test_figures_of_words_that_all_stand_apart_are_perfect() -> None:
    def one(learned: str, own: float) -> Seen:
        return Seen("x", learned, "INCONCLUSIVE", own, True, 0.5)

    rows = dict(figures([*(one("bomb", 9.0 + i) for i in range(3)), one("", 1.0), one("", 2.0)]))
    assert rows["AUROC, the concept's score against the highest of harmless ones"] == "1.000"
    assert str(rows["learned: score above that of 95% of harmless ones"]).startswith("100.0%")
