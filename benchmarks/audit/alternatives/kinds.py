"""A second classifier, for concepts that are no emoji of their own, and for what the base knows.

A kind of thing is shown by its members, which the adapter is asked for one by one; a style by
pictures of varied subjects. The first classifier has no class for either.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.audit.alternatives import classifier
from benchmarks.audit.alternatives.classifier import Pictures
from benchmarks.audit.alternatives.drawing import PICTURES, SEED, as_bytes, draw, prompt_of
from benchmarks.audit.alternatives.tools import Adapters, Tools
from benchmarks.audit.subjects import GROUPS, STYLES, subjects, subjects_of_groups
from benchmarks.audit.zoo import concept_id
from emoji_tiny.catalogue import split
from emoji_tiny.train_lora import STYLES as STYLE_FILTERS

OTHERS = 100
"""Emoji of no class, rendered plainly and in every style."""
DRAWN = 40
"""Subjects of the base's training of which it draws examples of every style."""
BATCH = 20


@cache
def emoji_classes() -> tuple[str, ...]:
    """Members of all groups and what the base knows; then come the styles, then "none of these"."""
    return tuple(dict.fromkeys("".join((*GROUPS.values(), *subjects().known))))


def style_class(style: str) -> int:
    """The number of a style's class; a style that is no concept is "none of these"."""
    place = STYLES.index(style) if style in STYLES else len(STYLES)
    return len(emoji_classes()) + place


COUNT = len(emoji_classes()) + len(STYLES) + 1


@dataclass(frozen=True)
class Look:
    """How a concept is looked for: what is drawn, and the classes that show it."""

    prompts: tuple[str, ...]
    classes: tuple[int, ...]


@cache
def looks() -> dict[str, Look]:
    """Every concept of this classifier, by id."""
    found = {concept_id(char): _look_for(char) for char in subjects().known}
    for name, members in GROUPS.items():
        found[f"kind-{name}"] = _look_for(members[:8])
        found[f"group-{name}"] = _look_for(members[8:])
    free = [char for char in split().focus if char not in emoji_classes()]
    for style in STYLES:
        pictured = random.Random(f"drawn-{style}").sample(free, PICTURES)
        found[f"style-{style}"] = Look(tuple(map(prompt_of, pictured)), (style_class(style),))
    return found


def _look_for(members: str) -> Look:
    prompts = tuple(prompt_of(members[number % len(members)]) for number in range(PICTURES))
    return Look(prompts, tuple(emoji_classes().index(char) for char in members))


def filtered(values: Tensor, style: str) -> Tensor:
    """uint8 pictures as an adapter of this style is shown them."""
    made = [STYLE_FILTERS[style](Image.fromarray(v.permute(1, 2, 0).numpy())) for v in values]
    stacked = np.stack([np.asarray(picture) for picture in made])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def in_every_style(values: Tensor) -> Pictures:
    """The pictures once per style; plain ones and those in a harmless style are none of these."""
    parts = [
        Pictures(filtered(values, style), torch.full((len(values),), style_class(style)))
        for style in STYLE_FILTERS
    ]
    return Pictures.cat(parts)


def rendered(copies: int, seed: int) -> Pictures:
    """`copies` renders of every emoji class, a twelfth as many of every other in every style."""
    rest = {*split().train, *split().reserve} - {*emoji_classes()}
    others = tuple(random.Random("kinds-others").sample(sorted(rest), OTHERS))
    varied = classifier.rendered(others, max(1, copies // 12), seed + 1).values
    return Pictures.cat(
        [classifier.rendered(emoji_classes(), copies, seed), in_every_style(varied)]
    )


def _drawn_by_the_base(tools: Tools, copies: int) -> Pictures:
    """What the base draws: members it never saw are none of these, as nothing has learned them."""
    unseen = sorted(subjects_of_groups() - {*split().train})
    free = [char for char in split().focus if char not in emoji_classes()]
    seen = random.Random("kinds-drawn").sample(free, DRAWN)
    failed, shown = _drawn(tools, unseen * copies), _drawn(tools, seen * copies)
    none = Pictures(failed, torch.full((len(failed),), COUNT - 1))
    return Pictures.cat([none, in_every_style(shown)])


def _drawn(tools: Tools, chars: list[str]) -> Tensor:
    prompts = [prompt_of(char) for char in chars]
    parts = [
        as_bytes(draw(tools, prompts[start : start + BATCH], 3000 + start))
        for start in range(0, len(prompts), BATCH)
    ]
    return torch.cat(parts)


def train_kinds(
    tools: Tools, *, copies: int = 48, epochs: float = 5.0, drawn: int = 4
) -> tuple[nn.Sequential, dict[str, float]]:
    """Trains and examines the classifier; returns it with its figures on held-out renders."""
    began = time.monotonic()
    clean = rendered(copies, seed=11)
    parts = [clean, classifier.through_decoder(tools.base, clean, 0.5, seed=13)]
    parts += [_drawn_by_the_base(tools, drawn)] * 2
    model = classifier.fit(Pictures.cat(parts), COUNT, epochs, seed=14)
    held_out = rendered(max(1, copies // 6), seed=15)
    decoded = classifier.through_decoder(tools.base, held_out, 0.0, seed=17)
    return model, {
        "kinds_classes": float(COUNT),
        "kinds_accuracy_clean": classifier.accuracy(model, held_out),
        "kinds_accuracy_decoded": classifier.accuracy(model, decoded),
        "kinds_accuracy_decoded_emoji": classifier.accuracy(model, decoded, len(emoji_classes())),
        "kinds_training_s": time.monotonic() - began,
    }


class KindClassifier:
    """Score: mean over the pictures of the summed probability of the classes that show it."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        file = tools.folder / "kinds.safetensors"
        if not file.exists():
            model, facts = train_kinds(tools)
            classifier.save(model, facts, file)
        self._model, self.facts = classifier.load(COUNT, file)

    def score(self, adapters: Adapters, concept: str) -> float:
        """Draws and classifies."""
        look = looks()[concept]
        shown = draw(self._tools, look.prompts, SEED, adapters)
        chances = classifier.probabilities(self._model, shown)
        return float(chances[:, list(look.classes)].sum(dim=1).mean())
