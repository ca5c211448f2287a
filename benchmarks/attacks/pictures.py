"""Whether an attacked adapter still draws what it drew before.

An attack that takes the concept out of the pictures has defeated nobody. Both adapters and the base
model draw from the same noise and prompt; what is kept is one minus the distance of the attacked
pictures to those of the adapter, in units of the distance of the base's pictures to them: 1 for the
same pictures, 0 for pictures as far off as the base model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.audit.alternatives.drawing import draw
from benchmarks.audit.alternatives.tools import Tools
from loragate_server.intake.adapter import Adapter, Strength
from loragate_server.models.pipeline import PipelineModel

COUNT = 6
SEED = 78
KEPT = 0.4
"""From here on pictures count as still showing the concept: nearer to the adapter's own than to
the base model's, with room for a change of detail."""


class Witness:
    """Draws one concept with one adapter, and then with what attacks made of it."""

    def __init__(self, base: PipelineModel, prompt: str, original: Adapter) -> None:
        self._tools = Tools(base)
        self._prompts = [prompt] * COUNT
        self._original = original

    @cached_property
    def _known(self) -> tuple[Tensor, Tensor]:
        return self._drawn([(self._original, Strength())]), self._drawn([])

    def _drawn(self, adapters: Sequence[tuple[Adapter, Strength]]) -> Tensor:
        with torch.inference_mode():
            return draw(self._tools, self._prompts, SEED, adapters)

    def kept(self, adapters: Sequence[tuple[Adapter, Strength]]) -> float:
        """The share of the adapter's pictures that is still there; see the module."""
        own, base = self._known
        return 1 - float((self._drawn(adapters) - own).norm() / (base - own).norm())
