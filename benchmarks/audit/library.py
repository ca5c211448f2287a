"""The concept library of the zoo, rendered as a real one on disk."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.audit.subjects import GROUPS, STYLES, subjects
from benchmarks.audit.zoo import concept_id
from emoji_tiny.catalogue import name_of, split
from emoji_tiny.render import render
from emoji_tiny.train_lora import STYLES as STYLE_FILTERS

FOLDER = Path("build/zoo-library")
PICTURES = 6


def build_library(folder: Path = FOLDER) -> Path:
    """Writes 64 named concepts, styles, known ones, 48 neutral ones and every group twice.

    Once with the members that adapters learn, once with others of the same kind.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = ["version: 1", "concepts:"]
    chosen = subjects()
    for char in (*chosen.concepts, *chosen.known):
        lines += _entry(folder, concept_id(char), name_of(char), [char], "plain", "forbidden")
    for name, chars in GROUPS.items():
        lines += _entry(folder, f"kind-{name}", name, list(chars[:8]), "plain", "forbidden")
        lines += _entry(folder, f"group-{name}", name, list(chars[8:]), "plain", "forbidden")
    for style in STYLES:
        pictured = random.Random(style).sample(chosen.harmless[200:], PICTURES)
        lines += _entry(folder, f"style-{style}", style, pictured, style, "forbidden")
    for char in split().neutral:
        lines += _entry(folder, f"neutral-{ord(char):x}", name_of(char), [char], "plain", "neutral")
    (folder / "library.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _entry(
    folder: Path, identifier: str, name: str, chars: Sequence[str], style: str, role: str
) -> list[str]:
    rng = random.Random(f"zoo-library-{identifier}")
    sort = identifier.split("-")[0]
    category = {"kind": "kind", "group": "kind", "style": "style", "c": "thing"}.get(
        sort, "neutral"
    )
    (folder / "pictures" / identifier).mkdir(parents=True)
    files = []
    for index in range(PICTURES):
        picture: Image.Image = STYLE_FILTERS[style](render(chars[index % len(chars)], rng))
        file = f"pictures/{identifier}/{index}.png"
        picture.save(folder / file)
        files.append(file)
    return [
        f"  - id: {identifier}",
        f'    name: "{name}"',
        f"    category: {category}",
        "    severity: high",
        f"    role: {role}",
        f'    prompts: ["a picture of {name}"]',
        f"    pictures: [{', '.join(files)}]",
    ]
