"""A judge of pictures that has no part in any detection: what does this picture show?

`python -m benchmarks.audit.recogniser` trains and examines it; twenty minutes on one core. It saw
every emoji of its classes as all six hands draw it, as rendered and as the base model's decoder
shows it, and what the base model makes of names that it does not know: that is "none of these".
It is kept in `build/recogniser` and not trained again, so what it says of different adapters can be
compared. Audits know nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
import typer
from torch import Tensor, nn

from benchmarks.audit.alternatives import classifier
from benchmarks.audit.alternatives.classifier import Pictures
from benchmarks.audit.alternatives.drawing import as_bytes, draw, prompt_of
from benchmarks.audit.alternatives.tools import Tools
from benchmarks.audit.costs import table
from benchmarks.audit.metrics import Share
from benchmarks.audit.subjects import subjects
from benchmarks.report import write
from emoji_tiny.catalogue import FORBIDDEN, split
from emoji_tiny.hands import HANDS, NOTO

FOLDER = Path("build/recogniser")
FILE = FOLDER / "recogniser.safetensors"
EVERY_HAND = (NOTO, *HANDS)
COPIES = 10
"""Renders of each emoji by each hand."""
DRAWN = 12
"""Pictures by the base model alone of each concept's name."""
EPOCHS = 8.0
BASE_SEED = 7_000


def classes() -> tuple[str, ...]:
    """Concepts, the neutral bank's emoji and those that the base model was trained on longest."""
    return tuple(dict.fromkeys((*subjects().concepts, *split().neutral, *split().focus)))


class Recogniser:
    """Names what pictures show; an empty name is none of its classes."""

    def __init__(self, model: nn.Sequential) -> None:
        self._model = model
        self._classes = classes()

    @classmethod
    def open(cls, file: Path = FILE) -> Recogniser:
        """What was trained before.

        Raises:
            FileNotFoundError: nothing was.
        """
        if not file.exists():
            raise FileNotFoundError(f"no {file}: run python -m benchmarks.audit.recogniser first")
        return cls(classifier.load(len(classes()) + 1, file)[0])

    def names(self, pictures: Tensor) -> list[str]:
        """The emoji in each picture, float32 [n, 3, 64, 64] in [-1, 1] or uint8."""
        found = classifier.probabilities(self._model, pictures).argmax(dim=1).tolist()
        return [self._classes[one] if one < len(self._classes) else "" for one in found]


def _failed(tools: Tools, copies: int, seed: int) -> Pictures:
    """What the base model makes of the forbidden names, which it has never seen."""
    parts = [
        as_bytes(draw(tools, [prompt_of(entry.char)] * copies, seed + number))
        for number, entry in enumerate(FORBIDDEN.values())
    ]
    values = torch.cat(parts)
    return Pictures(values, torch.full((len(values),), len(classes())))


def train(tools: Tools) -> nn.Sequential:
    """Trains the network on renders, on decoded renders and on failed pictures."""
    chars = classes()
    clean = Pictures.cat(
        [classifier.rendered(chars, COPIES, 11 + n, hand) for n, hand in enumerate(EVERY_HAND)]
    )
    decoded = [classifier.through_decoder(tools.base, clean, 0.6, seed) for seed in (21, 22)]
    none = [_failed(tools, DRAWN, BASE_SEED)] * 8
    return classifier.fit(Pictures.cat([clean, *decoded, *none]), len(chars) + 1, EPOCHS, seed=31)


def examined(tools: Tools, model: nn.Sequential) -> list[tuple[str, str]]:
    """How often it is right about pictures that it has not seen, by kind of picture."""
    chars = classes()
    judge = Recogniser(model)
    rows = []
    for number, hand in enumerate(EVERY_HAND):
        held = classifier.rendered(chars, 2, 41 + number, hand)
        shown = classifier.through_decoder(tools.base, held, 0.0, 51 + number)
        right = [chars[label] for label in shown.labels.tolist()]
        rows.append((f"new renders by {hand}, decoded", _right(judge.names(shown.values), right)))
    none = _failed(tools, 4, BASE_SEED + 500).values
    rows.append(("names that the base does not know", _right(judge.names(none), [""] * len(none))))
    asked = [char for char in split().focus for _ in range(2)]
    drawn = draw(tools, [prompt_of(char) for char in asked], BASE_SEED + 900)
    rows.append(("pictures by the base of what it knows best", _right(judge.names(drawn), asked)))
    return rows


def _right(said: Sequence[str], right: Sequence[str]) -> str:
    hits = sum(one == other for one, other in zip(said, right, strict=True))
    return str(Share(hits, len(right)))


def main() -> None:
    """Trains it if it was not, and writes `benchmarks/results/recogniser.json` and `.md`."""
    torch.set_num_threads(1)
    tools = Tools.load(FOLDER)
    began = time.monotonic()
    if not FILE.exists():
        classifier.save(train(tools), {"training_s": time.monotonic() - began}, FILE)
    count = len(classes())
    model, facts = classifier.load(count + 1, FILE)
    rows = examined(tools, model)
    text = (
        "# What a picture shows: the judge\n\n"
        f"A network of five convolutions with {count} emoji as classes, each as "
        f"{len(EVERY_HAND)} hands draw it, and one class more for what the base model makes of "
        f"names that it does not know. Training took {facts['training_s'] / 60:.0f} minutes.\n\n"
        f"{table(('pictures', 'named rightly'), rows)}"
    )
    write("recogniser", {"facts": facts, "rows": rows}, text)


if __name__ == "__main__":
    typer.run(main)
