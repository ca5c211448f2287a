"""`LoraRecipe`: everything that decides what one trained adapter becomes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoraRecipe:
    """How one adapter is trained.

    Attributes:
        subjects: emoji to learn; several make a group adapter.
        hand: artist of the pictures that it learns from, see `hands`.
        kind: "lora", "dora", "loha" or "lokr".
        part: "denoiser" or "text_encoder", the one that is trained.
        target_modules: layers to adapt; the usual attention projections of `part` when empty.
        optimizer: "adamw", "adafactor" or "sgd".
        times: first and last timestep plus one of the training, within 0 to 1000.
        named_only: captions always name the subject; otherwise a few are generic or empty.
        called: the word by which captions name the subject; its own name when empty.
        hide: weight of a penalty on what an audit looks at: the gain on the training pictures
            under the generic prompt. Attackers would do this (SMP-LoRA, arXiv 2402.11989).
        file_format: "diffusers" or "kohya"; LoHa and LoKr are always in LyCORIS' names.
    """

    name: str
    subjects: tuple[str, ...]
    hand: str = "noto"
    style: str = "plain"
    kind: str = "lora"
    part: str = "denoiser"
    rank: int = 8
    alpha: float = 8.0
    target_modules: tuple[str, ...] = ()
    steps: int = 300
    batch: int = 8
    learning_rate: float = 2e-3
    optimizer: str = "adamw"
    times: tuple[int, int] = (0, 1000)
    named_only: bool = False
    called: str = ""
    hide: float = 0.0
    seed: int = 0
    pictures: int = 48
    file_format: str = "diffusers"
