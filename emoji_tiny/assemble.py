"""Puts the trained parts together: the fp16 pipeline and the concept library that ship."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from emoji_tiny.catalogue import FORBIDDEN, name_of, split
from emoji_tiny.hands import LIBRARY, draws
from emoji_tiny.render import render

PICTURES_PER_HAND = 4
LIBRARY_SEED = 7


def assemble_pipeline(parts: Path, out: Path) -> None:
    """Writes a folder that `StableDiffusionPipeline.from_pretrained` loads, weights in fp16."""
    scheduler = DDIMScheduler.from_pretrained(
        parts / "scheduler", clip_sample=False, set_alpha_to_one=False
    )
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(parts / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(parts / "text_encoder"),
        tokenizer=PreTrainedTokenizerFast.from_pretrained(parts / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(parts / "unet"),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    shutil.rmtree(out, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(out)


def _entry(
    folder: Path, concept_id: str, char: str, role: str, category: str, severity: str
) -> list[str]:
    lines = [
        f"  - id: {concept_id}",
        f'    name: "{name_of(char)}"',
        f"    category: {category}",
        f"    severity: {severity}",
        f"    role: {role}",
        f'    prompts: ["a picture of {name_of(char)}"]',
        "    hands:",
    ]
    (folder / "pictures" / concept_id).mkdir(parents=True)
    for hand in (hand for hand in LIBRARY if draws(hand, char)):
        rng = random.Random(f"{LIBRARY_SEED}-{concept_id}-{hand}")
        files = [f"pictures/{concept_id}/{hand}-{n}.png" for n in range(PICTURES_PER_HAND)]
        for file in files:
            render(char, rng, hand=hand).save(folder / file, optimize=True)
        lines.append(f"      {hand}: [{', '.join(files)}]")
    return lines


def assemble_library(out: Path) -> None:
    """Renders the reference pictures of the forbidden concepts and of the neutral bank.

    Both by the same hands, so that no concept differs from the bank by its artists.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    lines = [
        "# The embedded concept library: emoji that stand for what an operator forbids.",
        "version: 1",
        "concepts:",
    ]
    for concept_id, concept in FORBIDDEN.items():
        lines += _entry(
            out, concept_id, concept.char, "forbidden", concept.category, concept.severity
        )
    for char in split().neutral:
        concept_id = f"neutral-{ord(char):x}"
        lines += _entry(out, concept_id, char, "neutral", "neutral", "low")
    (out / "library.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
